# Everything a fresh Debian machine needs: `make demo` shows it, `make test` proves it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo test check bench soak faults fuzz peers manifests nodes clean

help:
	@echo "make demo   set up, start a cluster, show the whole path; leaves the cluster running"
	@echo "make test   set up, run every test"
	@echo "make check  formatting, lint, types, order of packages"
	@echo "make bench  measure; the tables go into docs/benchmarks.md"
	@echo "make fuzz   10,000 malformed requests against every endpoint"
	@echo "make peers  hold parts to other projects' programs: COREDNS=/path/to/coredns, KUBE_PROXY=/path/to/kube-proxy"
	@echo "make soak   two hundred pods at once, a thousand that come and go, agents killed again and again: nothing is left (slow)"
	@echo "make manifests  apply every manifest below MANIFESTS=DIR (a copy of the Kubernetes documentation's)"
	@echo "make nodes  more tests of nodes outside the LAN, also in iptables mode (slow)"
	@echo "make faults break a running cluster in every known way and see that explain names the cause (slow)"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py tools/setup src/fairlead/dns/_hot.c src/fairlead/dns/siphash.h
	@PYTHON=$(PYTHON) tools/setup $(VENV)
	@touch $@

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/01-a-service/demo

test: setup check
	@KUBECTLS=$$(ls $(CURDIR)/$(VENV)/kubectl-debian 2>/dev/null) $(BIN)/pytest -q -n 2 --dist loadgroup

check: setup
	@$(BIN)/ruff format --check -q src tests tools
	@$(BIN)/ruff check -q src tests tools
	@$(BIN)/mypy
	@$(BIN)/lint-imports >/dev/null || $(BIN)/lint-imports

bench: setup
	@$(BIN)/python -m tests.bench

soak: setup
	@SOAK_PODS=200 SOAK_CHURN=1000 SOAK_KILLS=40 $(BIN)/pytest -q -s tests/cluster/test_churn.py tests/cluster/test_restarts.py

faults: setup
	@FAULTS=all $(BIN)/pytest -q -s tests/cluster/test_explain_faults.py tests/cluster/test_explain_packets.py

fuzz: setup
	@$(BIN)/python -m tests.fuzz --requests 10000

peers: setup
	@[ -n "$$COREDNS$$KUBE_PROXY" ] || { echo "peers: say which program: COREDNS=/path/to/coredns, KUBE_PROXY=/path/to/kube-proxy" >&2; exit 1; }
	@$(BIN)/pytest -q -s tests/peers

manifests: setup
	@$(BIN)/python -m tests.manifests

nodes: setup
	@$(BIN)/pytest -q tests/cluster/nodes_outside_more.py
	@OUTSIDE_PROXY_MODE=iptables $(BIN)/pytest -q tests/cluster/test_nodes_outside.py \
	  -k "takes_the_way or own_addresses or ipv6 or spreads or processes or internal_address_from or node_ports or reaches_into"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
