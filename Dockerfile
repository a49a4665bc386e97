# The shop in an image of its own: built in one stage, and nothing but the program in the other.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /shop
COPY . .
RUN cargo build --release --locked -p stockade && install -d /data

# The libraries of the same Debian, and neither a shell nor a package manager: whoever gets in finds nothing to work with.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chown=10001:10001 /data /data
COPY --from=build /shop/target/release/stockade /usr/local/bin/stockade
# The default data directory is `./data`.
WORKDIR /
USER 10001:10001
VOLUME /data
# Whether it takes orders, for itself or for the node that leads; the program asks, for nobody else is here. While no node leads none
# is well, and to start them again helps nobody: whatever does that to those who are not well should ask `healthcheck --live` instead.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["stockade", "healthcheck"]
ENTRYPOINT ["stockade"]
CMD ["serve"]
