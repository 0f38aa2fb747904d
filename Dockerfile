# The app in a container: see docs/deploy.md. Not built on the machine where it was written, which has
# no Docker; the steps were run in a clean directory instead.

FROM python:3.13-slim AS install
# cpu, auto, or a CUDA version of PyTorch such as cu130; uv knows where PyTorch keeps its builds.
ARG TORCH_BACKEND=cpu
RUN python -m venv /uv && /uv/bin/pip install --no-cache-dir uv && python -m venv /venv
WORKDIR /app
COPY requirements.txt requirements-auth.txt requirements-images.txt requirements-onnx.txt constraints.txt ./
RUN /uv/bin/uv pip install --python /venv/bin/python --no-cache --compile-bytecode \
    --torch-backend "$TORCH_BACKEND" -c constraints.txt \
    -r requirements.txt -r requirements-auth.txt -r requirements-images.txt -r requirements-onnx.txt
# Streamlit serves the folder from here; the command diffusion-lab is `python -m diffusion_core`.
COPY . .
RUN python -m compileall -q dashboard diffusion_core pages

FROM python:3.13-slim
RUN useradd --uid 1000 --create-home lab
COPY --from=install /venv /venv
COPY --from=install /app /app
# A new volume begins as this folder is: with the shipped runs, and writable.
RUN mkdir /runs && cp -r /app/checkpoints/demo-* /runs/ && chown -R lab:lab /runs
WORKDIR /app
USER lab
# Only /runs and /tmp are written to, so the root may be read-only.
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \
    DIFFUSION_LAB_ROLE=viewer DIFFUSION_LAB_RUNS_DIR=/runs DIFFUSION_LAB_CACHE_DIR=/tmp/diffusion-lab
VOLUME /runs
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:8501/_stcore/health')"]
CMD ["streamlit", "run", "streamlit_app.py", "--server.address", "0.0.0.0", "--server.port", "8501"]
