//! The properties of freshness, in a simulated cluster.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::Freshness;
use super::freshness_world::{Router, Step, World};
use crate::route::Level;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (n, s) = (0usize..4, 0usize..6);
    let step = prop_oneof![
        12 => (n.clone(), 1usize..6).prop_map(|(n, k)| Step::Replay(n, k)),
        1 => n.clone().prop_map(Step::Pause),
        2 => (n.clone(), 0usize..8).prop_map(|(n, k)| Step::Crash(n, k)),
        4 => n.clone().prop_map(Step::Lost),
        30 => n.clone().prop_map(Step::Poll),
        1 => (n.clone(), any::<bool>()).prop_map(|(n, lives)| Step::Promote(n, lives)),
        3 => (n, 0usize..4).prop_map(|(n, k)| Step::Follow(n, k)),
        40 => (s, any::<u8>()).prop_map(|(s, what)| Step::Session(s, what)),
    ];
    vec(step, 1..400)
}

fn play(world: &mut World, steps: &[Step]) -> Result<(), TestCaseError> {
    for (at, step) in steps.iter().enumerate() {
        world.step(*step).map_err(|e| TestCaseError::fail(format!("step {at}: {e}")))?;
    }
    Ok(())
}

/// How many histories each property is tried on.
fn cases() -> u32 {
    std::env::var("FRESHNESS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_session_sees_less_than_it_wrote_or_read(steps in steps(), tells: bool, asks: bool, wait in 0u64..8) {
        play(&mut World::new(Router::Ours, tells, asks, wait), &steps)?;
    }

    #[test]
    fn when_all_is_replayed_and_polled_replicas_serve_in_turn(steps in steps(), asks: bool, wait in 0u64..8) {
        let mut world = World::new(Router::Ours, true, asks, wait);
        play(&mut world, &steps)?;
        world.settle();
        // Whoever holds a position of an older epoch asks for a poll of the primary now.
        for n in 0..6 {
            world.clients[n].waiting = None;
            world.read(n);
            world.clients[n].running = None;
        }
        world.poll_all();
        for n in 0..6 {
            world.clients[n].waiting = None;
            let mut places = Vec::new();
            for _ in 0..6 {
                let node = world.read(n);
                prop_assert!(node.is_some_and(|node| node != world.primary), "session {}: {:?}", n, node);
                places.extend(node);
                if world.clients[n].level == Level::Session {
                    world.poll_all();
                }
            }
            prop_assert_ne!(places[0], places[1]);
            prop_assert_ne!(places[0], places[2]);
            prop_assert_ne!(places[1], places[2]);
            prop_assert_eq!(&places[..3], &places[3..]);
        }
        let mut shares = [0; 4];
        for round in 0..300 {
            world.clients[0].freshness = Freshness::new(round);
            shares[world.read(0).unwrap()] += 1;
        }
        shares[world.primary] += 100;
        prop_assert_eq!(shares, [100; 4]);
    }
}

#[test]
fn routers_that_get_it_wrong_are_caught() {
    let asking = [Router::Unproven, Router::ToldTooSoon].map(|router| (router, true));
    let polling = [Router::Naive, Router::LastPoll, Router::EpochOfTheEnd, Router::Unconfirmed];
    for (router, asks) in polling.map(|router| (router, false)).into_iter().chain(asking) {
        let config = ProptestConfig {
            cases: 40_000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        };
        let result = TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(Default::default()),
        )
        .run(&steps(), |steps| play(&mut World::new(router, true, asks, 4), &steps));
        assert!(matches!(result, Err(TestError::Fail(..))), "{router:?} was not caught");
    }
}
