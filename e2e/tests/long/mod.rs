//! Tests that take minutes or measure exact times: kind clusters with several nodes, the release
//! image, contenders of the benchmark, a restore of etcd. `make test` skips them, and
//! `make test-long` runs them.

mod announcer;
mod aws;
mod bench;
mod demo;
mod hostile;
mod image;
mod kind;
mod kind_metal;
mod restore;
mod teardown;
