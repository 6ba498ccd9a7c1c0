# One image: on a machine with a GPU run it with --gpus all; without one, or with --gpu cpu, it runs on the CPU.
#   docker build -t aiene .
#   docker run --rm --gpus all -v /path/to/cts:/in:ro -v /path/to/results:/out aiene run /in -o /out
#   docker run --rm -v /path/to/cts:/in:ro -v /path/to/results:/out aiene run /in -o /out --gpu cpu
# The published command line is taken too, as is run_benchmark.py's after its name:
#   docker run --rm -v /path/to/cts:/in:ro -v /path/to/results:/out aiene --input-dir /in --output-dir /out
# Results belong to user 1000 of the image; with --user "$(id -u):$(id -g)" they belong to you.
FROM python:3.11-slim

WORKDIR /opt/aiene
COPY pyproject.toml constraints.txt requirements.txt README.md LICENSE NOTICE run_e2e.py ./
COPY licences ./licences
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt '.[hospital]'

# Bundles that are imported go to a volume; the image runs as any user.
ENV AIENE_MODELS=/models AIENE_CONTAINER=docker
# /var/lib/aiene is the store of `aiene dicom listen` (integrations/orthanc/compose.yaml).
RUN mkdir /models && chmod 777 /models && useradd --create-home aiene && \
    install --directory --owner=aiene --mode=0700 /var/lib/aiene
USER aiene
WORKDIR /home/aiene

ENTRYPOINT ["python", "-m", "aiene.cli.container"]
CMD ["--help"]
