use ballast_provider::{Labels, Target};
use proptest::prelude::*;

use super::*;

fn nodes(numbers: &[u8]) -> Nodes {
    let node = |number: &u8| Target {
        name: format!("node-{number}"),
        addresses: Vec::new(),
        provider_id: Some(format!("aws:///eu-west-1a/i-{number}")),
        labels: Arc::new(Labels::default()),
    };
    let all: Vec<Target> = numbers.iter().map(node).collect();
    Nodes::of(&all)
}

fn name(nodes: &Nodes) -> String {
    nodes.name(&everything())
}

/// Every target group selects all nodes.
fn everything() -> BTreeSet<Selector> {
    BTreeSet::from([Selector::default()])
}

/// The controller has these nodes, and the tag names them.
fn settled(numbers: &[u8]) -> Targets {
    let mut targets = Targets::default();
    let (nodes, _) = targets.replace(nodes(numbers));
    let writing = targets.begin(targets.epoch()).expect("the same epoch");
    targets.end(writing, Written::Names(name(&nodes), everything()));
    targets
}

#[test]
fn a_tag_that_was_written_is_believed_until_something_may_make_it_wrong() {
    let targets = settled(&[1, 2]);
    assert!(targets.is_settled_for(&everything()));
    assert!(!targets.is_settled_for(&BTreeSet::new()));
    // Other nodes: it still names the former ones, and so it goes before the wave.
    let mut other = targets.clone();
    other.replace(nodes(&[1]));
    assert_eq!(other.settled(), targets.settled());
    assert!(other.may_have_tag());
    other.unsettle();
    assert_eq!(other.settled(), None);
    assert!(other.may_have_tag(), "nobody has removed it yet");
    other.removed();
    assert!(!other.may_have_tag());
    // The backend group is deleted, and its tag with it.
    let mut gone = targets;
    gone.lose_group();
    assert!(!gone.may_have_tag());
}

#[test]
fn an_instance_that_aws_refuses_stays_refused_and_the_tag_goes() {
    let mut targets = settled(&[1, 2]);
    assert!(targets.refuse("i-2"));
    let (now, before) = targets.replace(nodes(&[1, 2, 3]));
    assert!(before.is_some_and(|before| before.is_refused("i-2")));
    assert!(now.is_refused("i-2"));
    assert!(targets.has_refused());
    // Without a tag nothing is to be removed.
    targets.unsettle();
    targets.removed();
    assert!(!targets.refuse("i-3"));
    targets.forgive();
    assert!(!targets.has_refused());
}

#[test]
fn what_was_true_in_another_epoch_is_neither_written_nor_believed() {
    type Edit = fn(&mut Targets);
    let changes: [(&str, Edit); 6] = [
        ("other nodes", |it| drop(it.replace(nodes(&[7])))),
        ("a refusal", |it| {
            it.refuse("i-1");
        }),
        ("forgiven", Targets::forgive),
        ("a wave", Targets::unsettle),
        ("another group", Targets::lose_group),
        ("a list", |it| it.found(None)),
    ];
    for (what, change) in changes {
        let mut late = settled(&[1, 2]);
        let epoch = late.epoch();
        change(&mut late);
        assert!(late.begin(epoch).is_none(), "{what}: too late to write");
        let mut during = settled(&[1, 2]);
        let writing = during.begin(during.epoch()).expect("the same epoch");
        change(&mut during);
        during.end(writing, Written::Names("late".to_owned(), everything()));
        assert_ne!(during.settled().map(String::as_str), Some("late"), "{what}");
    }
}

#[test]
fn a_write_that_failed_leaves_what_was_and_one_without_an_answer_leaves_doubt() {
    let before = settled(&[1, 2]);
    let mut refused = before.clone();
    let writing = refused.begin(refused.epoch()).expect("the same epoch");
    assert_eq!(refused.settled(), None, "nobody believes it meanwhile");
    refused.end(writing, Written::Refused);
    assert_eq!(refused.settled(), before.settled());
    let mut unknown = before;
    let writing = unknown.begin(unknown.epoch()).expect("the same epoch");
    unknown.end(writing, Written::Unknown);
    assert_eq!(unknown.settled(), None);
    assert!(unknown.may_have_tag());
}

/// The backend group in EC2, and what one process does with its tag. Calls of the tag have a lock, so one of
/// them is on its way at a time.
#[derive(Debug, Default)]
struct World {
    targets: Targets,
    tag: Option<String>,
    call: Option<Call>,
}

#[derive(Debug)]
enum Call {
    Write(Writing, String),
    Remove,
}

#[derive(Clone, Debug)]
enum Step {
    Nodes(Vec<u8>),
    Refuse(u8),
    Begin,
    Unsettle,
    Remove,
    /// EC2 acts or not, and answers or not.
    Arrive {
        acts: bool,
        answers: bool,
    },
    Group,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = prop::collection::vec(1_u8..4, 0..3);
    prop_oneof![
        numbers.prop_map(Step::Nodes),
        (1_u8..4).prop_map(Step::Refuse),
        Just(Step::Begin),
        Just(Step::Unsettle),
        Just(Step::Remove),
        (any::<bool>(), any::<bool>()).prop_map(|(acts, answers)| Step::Arrive { acts, answers }),
        Just(Step::Group),
        Just(Step::Restart),
    ]
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Nodes(numbers) => drop(self.targets.replace(nodes(&numbers))),
            Step::Refuse(number) => {
                if self.targets.refuse(&format!("i-{number}")) {
                    self.targets.unsettle();
                }
            }
            Step::Begin if self.call.is_none() => {
                let set = name(&self.targets.nodes().unwrap_or_default());
                let writing = self.targets.begin(self.targets.epoch());
                self.call = writing.map(|writing| Call::Write(writing, set));
            }
            Step::Unsettle => self.targets.unsettle(),
            // As a wave does: nobody believes the tag from before the call on.
            Step::Remove if self.call.is_none() => {
                self.targets.unsettle();
                self.call = Some(Call::Remove);
            }
            Step::Arrive { acts, answers } => self.arrive(acts, answers),
            Step::Group if self.call.is_none() => {
                self.tag = None;
                self.targets.lose_group();
            }
            Step::Restart => {
                self.call = None;
                self.targets = Targets::default();
                self.targets.found(self.tag.clone());
            }
            Step::Begin | Step::Remove | Step::Group => {}
        }
    }

    fn arrive(&mut self, acts: bool, answers: bool) {
        match self.call.take() {
            Some(Call::Write(writing, set)) => {
                if acts {
                    self.tag = Some(set.clone());
                }
                let written = match (acts, answers) {
                    (true, true) => Written::Names(set, everything()),
                    (false, true) => Written::Refused,
                    (_, false) => Written::Unknown,
                };
                self.targets.end(writing, written);
            }
            Some(Call::Remove) => {
                if acts {
                    self.tag = None;
                }
                if acts && answers {
                    self.targets.removed();
                }
            }
            None => {}
        }
    }
}

proptest! {
    /// Whatever comes between, what is said of the tag is true of EC2.
    #[test]
    fn the_tag_is_known_or_said_to_be_unknown(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
            if let Some(set) = world.targets.settled() {
                prop_assert_eq!(world.tag.as_ref(), Some(set));
            }
            if !world.targets.may_have_tag() {
                prop_assert_eq!(&world.tag, &None);
            }
        }
    }
}
