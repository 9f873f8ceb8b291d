//! Failures of leaders, controllers, clouds and API servers. Whatever fails and whenever,
//! everything converges afterwards, nothing is leaked or duplicated in the cloud, and no
//! Service changes its address (invariants 1, 2, 5, 7).

mod absence;
mod api_server;
mod cloud;
mod leader;
mod two_classes;
