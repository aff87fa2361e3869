# The image that deploy/proxy.yaml runs. At the top of the repository:
#   docker build -f deploy/proxy.Dockerfile -t fairlead-proxy . (podman build takes the same)
FROM python:3.11-slim-bookworm
# nft is for people who look; iptables is what the mode of that name works with.
RUN apt-get update && apt-get install -y --no-install-recommends nftables iptables conntrack \
 && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir /src && rm -rf /src
ENTRYPOINT ["fairlead", "proxy"]
