use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::seal::{Key, Keys};

fn at(seconds: u64) -> Time {
    Time::after_start(Duration::from_secs(seconds))
}

fn node(n: usize) -> NodeName {
    NodeName::new(&format!("node-{n}"))
}

fn key() -> KeyId {
    let mut keys = Keys::default();
    keys.update(&[Key::new([1; 32])], at(0));
    keys.opening(at(0)).next().unwrap().0
}

/// Numbers that are never drawn twice, across all processes.
struct Draw(u64);

impl Draw {
    fn draw(&mut self) -> Token {
        self.0 += 1;
        self.0
    }
}

/// Two nodes, whose processes end and start, and everything that was ever sent.
struct World {
    draw: Draw,
    nodes: [Process; 2],
    recorded: Vec<Sealed>,
}

struct Process {
    sessions: Sessions,
    incarnation: u64,
    /// The incarnation of the other node in each message that was delivered to any process of
    /// this node since the last start.
    delivered: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Sealed {
    to: usize,
    tokens: Tokens,
    arrived: Arrived,
}

impl World {
    fn new() -> Self {
        let process = |incarnation| Process {
            sessions: Sessions::default(),
            incarnation,
            delivered: Vec::new(),
        };
        Self {
            draw: Draw(0),
            nodes: [process(1), process(1)],
            recorded: Vec::new(),
        }
    }

    fn restart(&mut self, n: usize) {
        self.nodes[n].sessions = Sessions::default();
        self.nodes[n].incarnation += 1;
        self.nodes[n].delivered.clear();
    }

    fn send(&mut self, from: usize) -> Sealed {
        let to = 1 - from;
        let draw = || self.draw.draw();
        let (tokens, _) = self.nodes[from].sessions.outgoing(&node(to), at(0), draw);
        let incarnation = self.nodes[from].incarnation;
        let arrived = Arrived::Message { incarnation };
        self.record(to, tokens, arrived)
    }

    fn record(&mut self, to: usize, tokens: Tokens, arrived: Arrived) -> Sealed {
        let sealed = Sealed {
            to,
            tokens,
            arrived,
        };
        self.recorded.push(sealed);
        sealed
    }

    /// Returns the answer, if there is one.
    fn receive(&mut self, sealed: Sealed) -> Option<Sealed> {
        let Sealed {
            to,
            tokens,
            arrived,
        } = sealed;
        let from = 1 - to;
        let draw = || self.draw.draw();
        let sessions = &mut self.nodes[to].sessions;
        let verdict = sessions.incoming(&node(from), tokens, arrived, key(), at(0), draw);
        if let (Verdict::Deliver | Verdict::DeliverAndGreet(_), Arrived::Message { incarnation }) =
            (verdict, arrived)
        {
            self.nodes[to].delivered.push(incarnation);
        }
        match verdict {
            Verdict::Greet(tokens) | Verdict::DeliverAndGreet(tokens) => {
                Some(self.record(from, tokens, Arrived::Greeting))
            }
            Verdict::Repeat => Some(self.send(to)),
            Verdict::Deliver | Verdict::Ignore => None,
        }
    }

    /// Passes a message and all answers. Returns how many there were.
    fn pass(&mut self, sealed: Sealed) -> usize {
        let mut next = Some(sealed);
        let mut count = 0;
        while let Some(sealed) = next {
            count += 1;
            assert!(count < 20, "endless answers");
            next = self.receive(sealed);
        }
        count
    }
}

#[derive(Clone, Debug)]
enum Event {
    Restart(usize),
    /// The message and its answers arrive.
    Exchange(usize),
    /// A message is recorded, and does not arrive.
    Lose(usize),
    /// A message arrives, and its answer does not.
    LoseAnswer(usize),
    Replay(prop::sample::Index),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0..2usize;
    prop_oneof![
        node.clone().prop_map(Event::Restart),
        node.clone().prop_map(Event::Exchange),
        node.clone().prop_map(Event::Exchange),
        node.clone().prop_map(Event::Lose),
        node.prop_map(Event::LoseAnswer),
        any::<prop::sample::Index>().prop_map(Event::Replay),
        any::<prop::sample::Index>().prop_map(Event::Replay),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whoever records and replays everything: after a message of a process was delivered, none
    /// of a former process of that node is. And a live process is heard, always.
    #[test]
    fn former_processes_are_never_heard_and_live_ones_always(events in vec(event(), 0..40)) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Restart(n) => world.restart(n),
                Event::Exchange(n) => {
                    let sealed = world.send(n);
                    world.pass(sealed);
                    let heard = world.nodes[1 - n].delivered.last().copied();
                    prop_assert_eq!(heard, Some(world.nodes[n].incarnation));
                }
                Event::Lose(n) => {
                    world.send(n);
                }
                Event::LoseAnswer(n) => {
                    let sealed = world.send(n);
                    world.receive(sealed);
                }
                Event::Replay(_) if world.recorded.is_empty() => {}
                Event::Replay(index) => {
                    let sealed = *index.get(&world.recorded);
                    world.pass(sealed);
                }
            }
            for process in &world.nodes {
                prop_assert!(process.delivered.is_sorted(), "{:?}", process.delivered);
            }
        }
    }
}

#[test]
fn the_first_message_costs_two_greetings_and_the_next_ones_none() {
    let mut world = World::new();
    let first = world.send(0);
    // It, a greeting, it again: delivered. A greeting with a new token, it again.
    assert_eq!(world.pass(first), 5);
    for _ in 0..3 {
        let next = world.send(0);
        assert_eq!(world.pass(next), 1);
        let other = world.send(1);
        world.pass(other);
    }
    assert_eq!(world.nodes[0].delivered.len(), 3 + 1, "the first one twice");
}

#[test]
fn the_key_of_a_message_that_is_not_fresh_is_not_used() {
    let mut draw = Draw(0);
    let mut sessions = Sessions::default();
    let mut arrives = |yours, arrived| {
        let tokens = Tokens { mine: 77, yours };
        sessions.incoming(&node(1), tokens, arrived, key(), at(0), || draw.draw());
        sessions.outgoing(&node(1), at(0), || 0).1
    };
    assert_eq!(arrives(99, Arrived::Message { incarnation: 1 }), None);
    assert_eq!(arrives(99, Arrived::Greeting), None);
    assert_eq!(arrives(1, Arrived::Greeting), Some(key()));
}

/// Otherwise each copy would cost the next message a round trip.
#[test]
fn a_recorded_greeting_changes_nothing() {
    let mut world = World::new();
    let exchange = |world: &mut World| {
        for n in [0, 1, 0, 1] {
            let next = world.send(n);
            world.pass(next);
        }
    };
    exchange(&mut world);
    world.restart(1);
    exchange(&mut world);
    let greetings = world.recorded.clone().into_iter();
    let greetings = greetings.filter(|it| it.to == 0 && matches!(it.arrived, Arrived::Greeting));
    let token = world.send(0).tokens.mine;
    let former: Vec<_> = greetings.filter(|it| it.tokens.yours != token).collect();
    assert!(former.len() >= 3);
    for greeting in former {
        assert!(world.receive(greeting).is_none(), "{greeting:?}");
        let next = world.send(0);
        assert_eq!(world.pass(next), 1, "{greeting:?}");
    }
}

#[test]
fn the_peers_of_the_latest_messages_are_kept() {
    let mut sessions = Sessions::default();
    let mut draw = Draw(0);
    let mut token = |n: usize, second: u64| {
        let (tokens, _) = sessions.outgoing(&node(n), at(second), || draw.draw());
        assert!(sessions.peers.len() <= PEERS);
        tokens.mine
    };
    for n in 0..PEERS {
        token(n, 1);
    }
    let kept = token(0, 2);
    let forgotten = token(1, 1);
    for n in PEERS..2 * PEERS - 1 {
        token(n, 3);
    }
    assert_eq!(token(0, 4), kept);
    assert_ne!(token(1, 4), forgotten);
}
