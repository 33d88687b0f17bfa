# The daemon with the worker of @agoric/xsnap. The worker must be the node's own: name its version with
#   --build-arg XSNAP_VERSION=…
# or mount the node's worker over /usr/local/bin/xsnap-worker.

FROM docker.io/library/node:20-bookworm AS worker
ARG XSNAP_VERSION=0.15.0
WORKDIR /build
# Compiled as it is installed.
RUN npm init -y > /dev/null && npm install --no-audit --no-fund "@agoric/xsnap@${XSNAP_VERSION}" \
 && cp node_modules/@agoric/xsnap/xsnap-native/xsnap/build/bin/lin/release/xsnap-worker /xsnap-worker \
 && /xsnap-worker -v

FROM docker.io/library/rust:1.95-bookworm AS spanwatch
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin spanwatch && cp target/release/spanwatch /spanwatch

FROM docker.io/library/debian:bookworm-slim
# The number is what the node's group must let in; override it with `--user`.
RUN groupadd --gid 65520 spanwatch && useradd --uid 65520 --gid 65520 --no-create-home --shell /usr/sbin/nologin spanwatch \
 && install -d -o spanwatch -g spanwatch -m 0750 /state
COPY --from=worker /xsnap-worker /usr/local/bin/xsnap-worker
COPY --from=spanwatch /spanwatch /usr/local/bin/spanwatch
USER spanwatch
ENV SPANWATCH_STATE_DIR=/state \
    SPANWATCH_WORKER_PATH=/usr/local/bin/xsnap-worker \
    SPANWATCH_NODE_DATABASE=/node/data/agoric \
    SPANWATCH_HTTP_LISTEN=0.0.0.0:9488
VOLUME /state
EXPOSE 9488
STOPSIGNAL SIGTERM
# The image has no curl; bash has sockets.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${SPANWATCH_HTTP_LISTEN##*:} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '^alive' <&3"]
ENTRYPOINT ["/usr/local/bin/spanwatch"]
CMD ["run"]
