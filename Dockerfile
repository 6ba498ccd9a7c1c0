# One image: on a machine with a GPU run it with --gpus all; without one, or with --gpu cpu, it runs on the CPU.
#   docker build -t aiene .
#   docker run --rm --gpus all -v /path/to/cts:/in:ro -v /path/to/results:/out aiene run /in -o /out
#   docker run --rm -v /path/to/cts:/in:ro -v /path/to/results:/out aiene run /in -o /out --gpu cpu
FROM python:3.11-slim

WORKDIR /opt/aiene
COPY pyproject.toml constraints.txt requirements.txt README.md LICENSE NOTICE run_e2e.py ./
COPY src ./src
RUN pip install --no-cache-dir -r requirements.txt

# Bundles that are imported go to a volume; the image runs as any user.
ENV AIENE_MODELS=/models AIENE_CONTAINER=docker
RUN mkdir /models && chmod 777 /models && useradd --create-home aiene
USER aiene
WORKDIR /home/aiene

ENTRYPOINT ["aiene"]
CMD ["--help"]
