//! What fails, fails here: leaders, controllers, clouds, API servers. Whatever dies and
//! whenever, everything converges afterwards, nothing is leaked or doubled in the
//! cloud, and no Service changes its address (invariants 1, 2, 5, 7).

mod absence;
mod api_server;
mod cloud;
mod leader;
mod two_classes;
