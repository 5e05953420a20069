# A Shallot node, whatever its roles: they stand in its shallot.toml. The context is the unpacked tarball (npm run package), or a clone in which
# the pages of the dashboard were built (npm run build:dashboard):
#   docker build -t shallot .
# The directory /var/lib/shallot is the node: see docs/operating.md, and the compose.yaml of the role.
FROM node:24-bookworm-slim AS packages
WORKDIR /opt/shallot
COPY package.json package-lock.json ./
# The image has a Node.js of its own: the one that the packages would bring stays out.
RUN npm ci --omit=dev --no-audit --no-fund \
 && rm -rf node_modules/node-linux-* node_modules/.bin/node \
 && cp package-lock.json node_modules/.shallot-lock

FROM node:24-bookworm-slim
RUN useradd --system --uid 970 --home-dir /var/lib/shallot --shell /usr/sbin/nologin shallot \
 && install -d -o shallot -g shallot -m 0700 /var/lib/shallot
COPY --from=packages /opt/shallot/node_modules /opt/shallot/node_modules
COPY package.json package-lock.json LICENSE README.md CHANGELOG.md /opt/shallot/
COPY bin /opt/shallot/bin
COPY man /opt/shallot/man
COPY bootstrap /opt/shallot/bootstrap
COPY relay /opt/shallot/relay
COPY exit /opt/shallot/exit
COPY dist/dashboard /opt/shallot/dist/dashboard
COPY src /opt/shallot/src
RUN ln -s /opt/shallot/bin/shallot /usr/local/bin/shallot
ENV SHALLOT_NODE=/usr/local/bin/node SHALLOT_DIR=/var/lib/shallot
USER shallot
VOLUME /var/lib/shallot
# It drains for relaying.drain_on_stop_ms: give it longer (docker stop -t 60).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s CMD ["/opt/shallot/bin/shallot", "status", "--json"]
ENTRYPOINT ["/opt/shallot/bin/shallot"]
CMD ["run"]
