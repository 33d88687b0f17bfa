# `make` alone lists the targets. `make demo` and `make test` set up what is missing; later runs reuse it.

## The directory that install puts bin/, lib/ and share/ into
PREFIX ?= /usr/local
## A directory in front of PREFIX, for packages
DESTDIR ?=

LAB := tests/lab
KINDS := everything items archives nothing
WORKER := $(LAB)/node_modules/@agoric/xsnap/xsnap-native/xsnap/build/bin/lin/release/xsnap-worker
LAB_SOURCES := $(LAB)/lab.mjs $(wildcard $(LAB)/src/*.mjs) $(wildcard $(LAB)/vats/*.js)
DATABASES := $(KINDS:%=$(LAB)/data/%/lab.json) $(LAB)/data/delicate/lab.json $(LAB)/data/recorder/lab.json

.PHONY: help demo test test-long test-setup check deny fuzz fuzz-long lab bench dist install clean

## Lists the targets and the variables.
help:
	@awk '/^## / { text = substr($$0, 4); next } \
	  text && /^[a-z][a-z-]*:/ { sub(/:.*/, ""); targets = targets sprintf("  %-12s %s\n", $$0, text) } \
	  text && /^[A-Z]+ \?=/ { variables = variables sprintf("  %-12s %s [%s]\n", $$1, text, $$3) } \
	  { text = "" } \
	  END { printf "make TARGET [VARIABLE=VALUE …]\n\nTargets:\n%s\nVariables:\n%s", targets, variables }' $(MAKEFILE_LIST)

## Builds, starts a real kernel and the daemon beside it, and catches a falsified record.
demo:
	$(MAKE) -j2 target/release/spanwatch $(LAB)/.cache/.bundled
	scripts/demo.sh

.PHONY: target/release/spanwatch
target/release/spanwatch:
	cargo build --release --locked

## Sets up and runs all tests but the slow ones.
test: test-setup
	scripts/test.sh

## Sets up and runs the slow tests: those in a module named `long`.
test-long: test-setup
	scripts/test.sh long

## Installs the programs and makes the databases that the tests need.
test-setup:
	scripts/prometheus.sh
	scripts/browser.sh
	$(MAKE) -j2 lab
	scripts/odd-worker.sh

## Checks format, lints and documentation, as for every commit.
check:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

## Checks the crates that are compiled in: licences, sources, build scripts, advisories (deny.toml).
deny:
	scripts/deny.sh

## Fuzzes each parser of outside data for 8 seconds, always with the same seed.
fuzz:
	scripts/fuzz.sh all 8 -seed=1

## Fuzzes each parser of outside data for ten minutes.
fuzz-long:
	scripts/fuzz.sh all 600

## Makes the databases that the tests verify, one for each kind of node.
lab: $(DATABASES)

# npm compiles the worker; the stamp is newer than the lock file once that is done.
$(LAB)/node_modules/.installed: $(LAB)/package-lock.json
	cd $(LAB) && npm ci --no-audit --no-fund
	test -x $(WORKER)
	touch $@

# All databases share the bundles. Bundling takes most of a minute, so it is done once, before them.
$(LAB)/.cache/.bundled: $(LAB)/node_modules/.installed $(LAB_SOURCES)
	cd $(LAB) && node lab.mjs --bundles-only
	touch $@

# Vats whose heaps depend on the compiler, on addresses, on the time zone.
$(LAB)/data/delicate/lab.json: $(LAB)/.cache/.bundled
	rm -rf $(@D)
	cd $(LAB) && node lab.mjs --out data/delicate --delicate

# A node that prunes everything, with the flight recorder that nodes have by default.
$(LAB)/data/recorder/lab.json: $(LAB)/.cache/.bundled
	rm -rf $(@D)
	cd $(LAB) && node lab.mjs --out data/recorder --keep nothing --flight-recorder --deliveries 100

$(LAB)/data/%/lab.json: $(LAB)/.cache/.bundled
	rm -rf $(@D)
	cd $(LAB) && node lab.mjs --out data/$* --keep $* --deliveries 100

## Measures the worker alone, spanwatch, and a verifier around the official driver; then a long history and a short one.
bench: target/release/spanwatch $(LAB)/bench-data/bench/lab.json
	node $(LAB)/bench.mjs --spanwatch target/release/spanwatch
	$(MAKE) $(LAB)/bench-data/long/agoric $(LAB)/bench-data/brief/agoric
	node $(LAB)/bench/scale.mjs target/release/spanwatch $(WORKER) $(LAB)/bench-data/brief/agoric $(LAB)/bench-data/long/agoric

$(LAB)/bench-data/long/agoric: | $(LAB)/bench-data/bench/lab.json
	node $(LAB)/bench/synthetic.mjs $(LAB)/bench-data/bench/agoric/swingstore.sqlite $@

$(LAB)/bench-data/brief/agoric: | $(LAB)/bench-data/bench/lab.json
	node $(LAB)/bench/synthetic.mjs $(LAB)/bench-data/bench/agoric/swingstore.sqlite $@ --vats 4 --spans 10

# Takes some minutes; made again only after it was removed.
$(LAB)/bench-data/bench/lab.json: | $(LAB)/node_modules/.installed
	rm -rf $(@D)
	cd $(LAB) && node lab.mjs --out bench-data/bench --bench --snapshot-initial 3 --snapshot-interval 20

## Packs the program, its configuration, man pages and completions into target/dist/, and tries the archive.
dist: target/release/spanwatch
	scripts/dist.sh
	scripts/dist.sh --check

## Installs the program, its unit, man pages and completions below PREFIX.
install: target/release/spanwatch
	scripts/dist.sh --install "$(DESTDIR)" "$(PREFIX)"

## Removes all that was built, installed or made.
clean:
	cargo clean
	rm -rf $(LAB)/node_modules $(LAB)/.cache $(LAB)/data $(LAB)/bench-data
