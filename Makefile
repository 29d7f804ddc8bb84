SHELL := /bin/bash
# Where rustup puts cargo on a machine that had none.
export PATH := $(PATH):$(HOME)/.cargo/bin

# `make release` builds target/pgo/tidegate, laid out by what it really runs: see scripts/release.
.PHONY: demo test test-roam test-clients release bench bench-compare bench-logins bench-instructions
demo:
	@scripts/ensure
	cargo run --release --quiet -- demo

test:
	@scripts/ensure clients
	cargo fmt --check
	cargo clippy --all-targets --features jemalloc -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	cargo test --features jemalloc

# The integration tests with clients that go to the next worker between any two transactions; TESTS="twins tls" for some of them.
test-roam:
	@scripts/ensure clients
	TIDEGATE_CLIENT_PLACEMENT=roam cargo test --features jemalloc --test it -- $(TESTS)

test-clients:
	@scripts/ensure all-clients
	cargo test --features jemalloc --test it -- --ignored heavy

release:
	@scripts/ensure release
	scripts/release

bench:
	@scripts/ensure
	cargo bench

# ARGS="--cells idle" measures one cell; --list says which there are, --help all else.
bench-compare:
	@scripts/ensure compare
	scripts/release
	python3 benches/compare/compare.py $(ARGS)

bench-logins:
	@scripts/ensure compare
	scripts/release
	python3 benches/logins/logins.py $(ARGS)

bench-instructions:
	@scripts/ensure instructions
	cargo build --release
	python3 benches/instructions/instructions.py $(ARGS)
