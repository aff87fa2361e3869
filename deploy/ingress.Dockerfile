# The image that deploy/ingress.yaml runs. At the top of the repository:
#   docker build -f deploy/ingress.Dockerfile -t fairlead-ingress . (podman build takes the same)
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir /src && rm -rf /src
ENTRYPOINT ["fairlead", "ingress"]
