# veil as a small image: the compiled binary and nothing else to run. The base has the C library and the
# certificates that TLS needs, no shell, and runs as a user that is not root.
#
#     docker build -t veil .

FROM oven/bun:1.4.5-slim AS build
WORKDIR /veil
COPY package.json bun.lock ./
RUN bun install --frozen-lockfile --production --ignore-scripts
COPY tsconfig.json ./
COPY scripts scripts
COPY sql sql
COPY src src
COPY vault vault
COPY deploy deploy
# The build context carries no .git: give the commit that `veil --version` should name.
ARG VEIL_COMMIT=unknown
# Set by the builder: amd64 or arm64.
ARG TARGETARCH=amd64
RUN VEIL_COMMIT="$VEIL_COMMIT" bun scripts/build.ts --only "linux-$([ "$TARGETARCH" = arm64 ] && echo arm64 || echo x64)" \
  && mv dist/veil-linux-* /usr/local/bin/veil

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/veil /usr/local/bin/veil
WORKDIR /
ENTRYPOINT ["/usr/local/bin/veil"]
CMD ["etl", "--follow"]
