# The daemon with the worker of @agoric/xsnap. The worker must be the node's own: for another version run
#   npm install --package-lock-only @agoric/xsnap@VERSION
# in config/worker, or mount the node's worker over /usr/local/bin/xsnap-worker.
#
# A tag can move to another image, a digest cannot. These commands pin the three base images:
#   digest() { docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}'; }
#   pin() { echo "$1@$(digest "$1")"; }
#   docker build --build-arg NODE_IMAGE="$(pin docker.io/library/node:20-bookworm)" \
#     --build-arg RUST_IMAGE="$(pin docker.io/library/rust:1.95-bookworm)" \
#     --build-arg DEBIAN_IMAGE="$(pin docker.io/library/debian:bookworm-slim)" --tag spanwatch .

ARG NODE_IMAGE=docker.io/library/node:20-bookworm
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${NODE_IMAGE} AS worker
WORKDIR /build
COPY config/worker/package.json config/worker/package-lock.json ./
# Installs exactly the packages of the lock file, each checked against its hash. Installing the worker compiles it.
RUN npm ci --no-audit --no-fund \
 && cp node_modules/@agoric/xsnap/xsnap-native/xsnap/build/bin/lin/release/xsnap-worker /xsnap-worker \
 && /xsnap-worker -v

FROM ${RUST_IMAGE} AS spanwatch
# The commit for `spanwatch --version`: --build-arg SPANWATCH_COMMIT="$(git rev-parse --short=12 HEAD)". The image's context has no .git.
ARG SPANWATCH_COMMIT
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin spanwatch && cp target/release/spanwatch /spanwatch

FROM ${DEBIAN_IMAGE}
# The node's files must be readable for this user's group; override both with `--user`.
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
# The image has no curl, but bash can open sockets.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${SPANWATCH_HTTP_LISTEN##*:} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '^alive' <&3"]
ENTRYPOINT ["/usr/local/bin/spanwatch"]
CMD ["run"]
