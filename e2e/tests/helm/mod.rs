//! The chart on a real cluster, with Helm and the rights that the chart grants: the whole life
//! of a release, one on bare metal, and two releases side by side.

mod announcers;
mod cluster;
mod kernel;
mod metallb;
mod neighbours;
mod policy;
mod quickstart;
mod stolen;
mod story;
