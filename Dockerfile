# The image of k8s-jobs/job.yaml. Built with the repository as context:
#   docker build -t tidemark:0.1.0 .        or: buildah bud --isolation=chroot -t tidemark:0.1.0 .
ARG BASE=debian:12-slim
FROM ${BASE} AS build
COPY . /src
WORKDIR /src
RUN ./install-packages packages-build.txt && ./quickstart --no-run

FROM ${BASE}
COPY packages-run.txt install-packages /opt/tidemark/
RUN /opt/tidemark/install-packages /opt/tidemark/packages-run.txt \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home tidemark \
    && install -d -o tidemark -g tidemark /results
COPY --from=build /src/build/tidemark /usr/local/bin/tidemark
COPY --from=build /src/configs /opt/tidemark/configs
# the direct copy between processes that Open MPI would try first is forbidden in most containers
ENV OMPI_MCA_btl_vader_single_copy_mechanism=none
USER 1000:1000
WORKDIR /opt/tidemark
ENTRYPOINT ["tidemark"]
CMD ["run", "configs/quickstart.yaml", "-o", "/results/quickstart.h5"]
