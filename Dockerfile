FROM rust:1.88-slim-bookworm AS build
WORKDIR /src
COPY . .
# Built by a profile, for which PostgreSQL's servers and pgbench run here.
RUN scripts/ensure release && scripts/release

FROM debian:bookworm-slim
RUN useradd --system --no-create-home --shell /usr/sbin/nologin tidegate
COPY --from=build /src/target/pgo/tidegate /usr/local/bin/tidegate
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/tidegate/
USER tidegate
# Inside a container the defaults of 127.0.0.1 would be out of reach. These outweigh a file; flags outweigh them.
# Who reaches the HTTP port is decided by whoever publishes it.
ENV TIDEGATE_LISTEN=0.0.0.0:6432 TIDEGATE_HTTP=0.0.0.0:9464 TIDEGATE_HTTP_FROM=all
EXPOSE 6432 9464
# SIGTERM, which is the default stop signal, lets transactions finish: give it longer than drain_timeout (30 s).
ENTRYPOINT ["tidegate"]
