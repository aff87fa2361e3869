# The image that deploy/loadbalancer.yaml runs. At the top of the repository:
#   docker build -f deploy/loadbalancer.Dockerfile -t fairlead-loadbalancer . (podman build takes the same)
FROM python:3.11-slim-bookworm
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir /src && rm -rf /src
ENTRYPOINT ["fairlead", "loadbalancer"]
