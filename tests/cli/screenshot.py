"""The HTML page renders: a browser without a network draws more than an empty page."""

import shutil
import struct
import subprocess
import zlib

import tidemark_cli as cli


def read_png(path):
    """(width, height, rows, bytes per pixel) of an 8-bit RGB or RGBA image (PNG specification)."""
    data = path.read_bytes()
    at, packed, width, height, depth = 8, b"", 0, 0, 3
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + n]
        if kind == b"IHDR":
            width, height, bits, color = struct.unpack(">IIBB", body[:10])
            assert bits == 8 and color in (2, 6), (bits, color)
            depth = 3 if color == 2 else 4
        elif kind == b"IDAT":
            packed += body
        at += 12 + n
    raw, stride, rows = zlib.decompress(packed), width * depth, []
    before = bytes(stride)
    for y in range(height):
        line = bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        unfilter(raw[y * (stride + 1)], line, before, depth)
        rows.append(bytes(line))
        before = line
    return width, height, rows, depth


def unfilter(kind, line, above, depth):
    for i in range(len(line)):
        left = line[i - depth] if i >= depth else 0
        corner = above[i - depth] if i >= depth else 0
        up = above[i]
        if kind == 1:
            line[i] = (line[i] + left) & 255
        elif kind == 2:
            line[i] = (line[i] + up) & 255
        elif kind == 3:
            line[i] = (line[i] + (left + up) // 2) & 255
        elif kind == 4:
            p = left + up - corner
            d = (abs(p - left), abs(p - up), abs(p - corner))
            line[i] = (line[i] + (left, up, corner)[d.index(min(d))]) & 255


class Page(cli.TestCase):
    def test_renders(self):
        config = cli.small_run(self.folder, load__rates=[10.0, 20.0], load__step="1s")
        self.good("run", config, "--quiet")
        page, shot = self.folder / "r.html", self.folder / "r.png"
        self.good("report", self.folder / "run.h5", "--format", "html", "-o", page)
        subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=800,1200",
                        f"--user-data-dir={self.folder / 'profile'}", f"--screenshot={shot}",
                        page.as_uri()], check=True, capture_output=True, timeout=90)
        width, height, rows, depth = read_png(shot)
        self.assertEqual(width, 800)
        background = rows[-1][:depth]
        drawn = [row for row in rows if row != background * width]
        self.assertGreater(len(drawn), height // 4, "rows with something on them")
        colors = {row[i : i + depth] for row in rows for i in range(0, len(row), depth * 7)}
        self.assertGreater(len(colors), 8)


if __name__ == "__main__":
    BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
    if not BROWSER:
        cli.skip("needs chromium")
    cli.main()
