//! Random histories against a model that keeps lists and looks at every address.
//!
//! After each step the Services that were woken are asked again, as the controller
//! does. The model then checks every answer (nothing given that may not be given,
//! nothing kept back that is free, nothing moved without cause), every counter (no
//! leak), and that the whole history runs the same a second time.

mod history;
mod world;

use proptest::prelude::*;

use self::history::{Step, step};
use self::world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_it(steps in prop::collection::vec(step(), 1..40)) {
        let first = run(&steps);
        prop_assert_eq!(first, run(&steps), "the same history, another result");
    }
}

fn run(steps: &[Step]) -> Vec<String> {
    let mut world = World::new();
    for step in steps {
        world.take(step);
    }
    world.log
}
