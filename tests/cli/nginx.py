"""nginx before a server, for TLS and HTTP/2: its configuration, certificates of an authority made for it."""

import contextlib
import getpass
import pathlib
import shutil
import socket
import subprocess
import textwrap

PORTS = ("tls1", "tls2", "client", "plain1", "plain2")  # tls2: HTTP/2; client: certificate wanted
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin")

# One worker, as who we are, everything in a folder of ours, nothing held back.
CONFIG = """
    {user}
    daemon off;
    worker_processes 1;
    pid {folder}/nginx.pid;
    error_log {folder}/error.log;
    events {{ worker_connections 4096; }}
    http {{
        log_format line "$server_port $connection $server_protocol $status";
        access_log {folder}/access.log line;
        client_body_temp_path {folder}/body;
        proxy_temp_path {folder}/proxy;
        fastcgi_temp_path {folder}/fastcgi;
        uwsgi_temp_path {folder}/uwsgi;
        scgi_temp_path {folder}/scgi;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        ssl_client_certificate {folder}/ca.pem;
        keepalive_requests 100000;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffering off;
        upstream null {{ server 127.0.0.1:{upstream}; keepalive 64; }}
        server {{ listen 127.0.0.1:{tls1} ssl; location / {{ proxy_pass http://null; }} }}
        server {{ listen 127.0.0.1:{tls2} ssl http2; location / {{ proxy_pass http://null; }} }}
        server {{ listen 127.0.0.1:{client} ssl; ssl_verify_client on;
                  location / {{ proxy_pass http://null; }} }}
        server {{ listen 127.0.0.1:{plain1}; location / {{ proxy_pass http://null; }} }}
        server {{ listen 127.0.0.1:{plain2} http2; location / {{ proxy_pass http://null; }} }}
    }}
"""


def openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


def make_certificates(folder):
    """ca, other (a stranger's authority), server for 127.0.0.1, client: NAME.pem and NAME.key."""
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("ca", "other"):
        openssl(folder, "req", "-x509", *fresh, "-subj", f"/CN={name}", "-days", "2",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name in ("server", "client"):
        openssl(folder, "req", *fresh, "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.csr")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{name}.pem")


def free_ports(n):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [s.getsockname()[1] for s in held]


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def configure(folder, upstream, ports):
    """nginx.conf in the folder, which has its certificates: the command to run, and its ports by name."""
    ports = dict(zip(PORTS, ports))
    user = f"user {getpass.getuser()};" if getpass.getuser() == "root" else ""
    config = pathlib.Path(folder, "nginx.conf")
    config.write_text(textwrap.dedent(CONFIG.format(user=user, folder=folder, upstream=upstream, **ports)))
    return ["setpriv", "--pdeathsig", "TERM", NGINX, "-e", f"{folder}/error.log", "-c", str(config)], ports
