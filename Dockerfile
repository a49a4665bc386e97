# The shop in an image of its own: built in one stage, and nothing but the program in the other.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /shop
COPY . .
RUN cargo build --release --locked -p stockade

FROM debian:bookworm-slim
# Letters, payments and webhooks leave over TLS.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data stockade && install -d -o stockade /data
COPY --from=build /shop/target/release/stockade /usr/local/bin/stockade
USER stockade
VOLUME /data
# Whether it takes orders, for itself or for the node that leads; the program asks, for there is no curl here. While no node leads none
# is well, and to start them again helps nobody: whatever does that to those who are not well should ask `healthcheck --live` instead.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["stockade", "healthcheck"]
ENTRYPOINT ["stockade"]
CMD ["serve"]
