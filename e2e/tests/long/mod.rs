//! Tests that take minutes or measure exact times: kind clusters with several nodes, the release
//! image, contenders of the benchmark, a restore of etcd, a tenant with hostile annotations. `make test` skips
//! them, and `make test-long` runs them with the release build.

mod bench;
mod demo;
mod hostile;
mod image;
mod kind;
mod restore;
