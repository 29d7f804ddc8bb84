//! On which workers clients are to be: on as few as have time for them.
//!
//! One worker that serves sixteen clients takes less time per query than two that serve eight each: it sleeps and wakes less
//! often, and sends to more of them by one call. So clients gather on the first workers, and spread when these get busy.

/// What a worker has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// The share of a processor that it takes: 0 to 1.
    pub(super) busy: f64,
    /// How many clients it has.
    pub(super) clients: usize,
}

/// What a login takes of a processor's time between two looks: about 100 us.
const LOGIN: f64 = 0.000_5;

impl Load {
    /// What it will be found to be at the next look, if so many newcomers have come since the last one. By that alone, a
    /// burst of them would all come to the worker that was idle when it began.
    pub(super) fn with(self, newcomers: u32) -> Self {
        Self { busy: self.busy.max((f64::from(newcomers) * LOGIN).min(1.0)), ..self }
    }
}

/// Clients of one worker are to go to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move {
    /// From which worker.
    pub from: usize,
    /// To which.
    pub to: usize,
    /// Which of its clients: about so many of all, more than 0 and at most 1.
    pub share: f64,
    /// Tells one choice of that share from another.
    pub salt: u32,
}

impl Move {
    /// Whether the client of that process id is one of those that are meant: about so many of all as the share is, and the same
    /// ones however often this is asked.
    #[inline]
    pub(super) fn means(&self, pid: u32) -> bool {
        // Every bit of both counts (the finalizer of MurmurHash3).
        let mut mixed = pid.wrapping_add(self.salt.wrapping_mul(0x9e37_79b9));
        mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x85eb_ca6b);
        mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
        f64::from(mixed ^ (mixed >> 16)) < self.share * f64::from(u32::MAX) || self.share >= 1.0
    }
}

/// A worker that takes more of a processor is too busy: who has to wait for it waits for long.
const FULL: f64 = 0.7;

/// Up to here it has time for more. Far enough below [`FULL`] that what has gathered does not spread at once.
const ROOMY: f64 = 0.45;

/// Workers that differ by less are about as busy.
const ALIKE: f64 = 0.2;

/// For so many looks clients are told to spread: each is meant or not when it next has something to ask.
const TOLD_FOR: u32 = 2;

/// So many looks show what has come of that.
const LEAST_PAUSE: u32 = 3;

/// What spreading does not mend, such as one client that is too much for any worker, is not tried anew for so many looks.
const LONGEST_PAUSE: u32 = 512;

/// The worker for a new client: the first that has time; else the one that is the least busy, and of those that are as busy
/// the one with the fewest clients. `None` if there is none.
#[must_use]
pub(super) fn for_newcomer(loads: impl Iterator<Item = (usize, Load)> + Clone) -> Option<usize> {
    let order = |a: &Load, b: &Load| a.busy.total_cmp(&b.busy).then(a.clients.cmp(&b.clients));
    let first = loads.clone().find(|(_, load)| load.busy < ROOMY);
    first.or_else(|| loads.min_by(|(_, a), (_, b)| order(a, b))).map(|(number, _)| number)
}

/// As how many like one that is so busy `all` are taken together, itself among them: 1 to as many as there are.
#[must_use]
pub(super) fn alike(own: u32, all: impl ExactSizeIterator<Item = u32>) -> usize {
    let (count, own) = (all.len().max(1), u64::from(own.max(1)));
    let all: u64 = all.map(u64::from).sum();
    usize::try_from((all + own / 2) / own).unwrap_or(count).clamp(1, count)
}

/// Says which clients are to move, look by look.
#[derive(Debug, Default)]
pub(super) struct Director {
    /// Clients that are told to spread, and for how many looks still.
    spread: Vec<Move>,
    told: u32,
    /// No others are for so many looks.
    pause: u32,
    /// How long the last pause was; 0 when nobody has wanted to spread since for as long again.
    last_pause: u32,
    salt: u32,
}

impl Director {
    /// Which clients are to move until the next look. Nobody is both sent away from a worker and to it. A worker that is gone
    /// has no load.
    pub(super) fn look(&mut self, loads: &[Option<Load>]) -> Vec<Move> {
        if self.told > 0 {
            self.told -= 1;
        } else {
            self.spread.clear();
        }
        if self.pause > 0 {
            self.pause -= 1;
        } else {
            self.salt = self.salt.wrapping_add(1);
            self.spread = spread(loads, self.salt);
            if self.spread.is_empty() {
                // Quiet as long as the last pause was: what comes now has nothing to do with that.
                self.last_pause /= 2;
                self.pause = self.last_pause;
            } else {
                self.last_pause = (2 * self.last_pause).clamp(LEAST_PAUSE, LONGEST_PAUSE);
                (self.told, self.pause) = (TOLD_FOR, self.last_pause);
            }
        }
        let mut moves = gather(loads, &self.spread);
        moves.extend_from_slice(&self.spread);
        moves
    }
}

/// From each that is too busy to the least busy one.
fn spread(loads: &[Option<Load>], salt: u32) -> Vec<Move> {
    let mut busy: Vec<_> = loads.iter().map(|load| load.map(|load| load.busy)).collect();
    let full = |number: &usize| loads[*number].is_some_and(|load| load.busy > FULL && load.clients > 0);
    let mut from: Vec<_> = (0..loads.len()).filter(full).collect();
    from.sort_by(|a, b| busy[*b].unwrap_or_default().total_cmp(&busy[*a].unwrap_or_default()));
    let mut found = Vec::new();
    for from in from {
        let others = busy.iter().enumerate().filter_map(|(to, busy)| Some((to, (*busy)?)));
        let Some((to, least)) = others.min_by(|(_, a), (_, b)| a.total_cmp(b)) else { break };
        let Some(most) = busy[from] else { continue };
        let apart = most - least;
        if apart > ALIKE {
            found.push(Move { from, to, share: apart / 2.0 / most, salt });
            // Nobody comes where others leave.
            (busy[from], busy[to]) = (None, Some(least + apart / 2.0));
        }
    }
    found
}

/// From the last to the first that have time for what they have to do; but for workers whose clients spread.
fn gather(loads: &[Option<Load>], spread: &[Move]) -> Vec<Move> {
    let mut busy: Vec<_> = loads
        .iter()
        .enumerate()
        .map(|(number, load)| load.filter(|_| !spread.iter().any(|m| m.from == number || m.to == number)))
        .map(|load| load.map(|load| load.busy))
        .collect();
    let mut takes = vec![false; loads.len()];
    let mut found = Vec::new();
    for from in (1..loads.len()).rev() {
        let has_clients = loads[from].is_some_and(|load| load.clients > 0);
        let Some(own) = busy[from].filter(|_| has_clients && !takes[from]) else { continue };
        if let Some((to, sum)) =
            (0..from).find_map(|to| Some((to, busy[to]? + own)).filter(|(_, sum)| *sum <= ROOMY))
        {
            (busy[to], takes[to]) = (Some(sum), true);
            // Nobody comes where others leave.
            busy[from] = None;
            found.push(Move { from, to, share: 1.0, salt: 0 });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads(busy: &[f64]) -> Vec<Option<Load>> {
        busy.iter().map(|busy| Some(Load { busy: *busy, clients: 10 })).collect()
    }

    fn newcomer(busy: &[f64]) -> Option<usize> {
        for_newcomer(loads(busy).into_iter().flatten().enumerate())
    }

    /// The moves of a first look: from, to, and share.
    fn first(loads: &[Option<Load>]) -> Vec<(usize, usize, f64)> {
        Director::default().look(loads).iter().map(|m| (m.from, m.to, m.share)).collect()
    }

    #[test]
    fn newcomers_fill_one_worker_after_the_other() {
        assert_eq!(newcomer(&[0.0, 0.0]), Some(0));
        assert_eq!(newcomer(&[0.5, 0.0]), Some(1));
        assert_eq!(newcomer(&[0.9, 0.6, 0.8]), Some(1));
        assert_eq!(newcomer(&[]), None);
        let few = [(3, Load { busy: 1.0, clients: 9 }), (5, Load { busy: 1.0, clients: 8 })];
        assert_eq!(for_newcomer(few.into_iter()), Some(5));
    }

    #[test]
    fn a_burst_of_newcomers_is_dealt_out() {
        let mut came = [0, 0, 0];
        for _ in 0..3_000 {
            let load = |came: u32| Load { clients: came as usize, ..Load::default() }.with(came);
            let number = for_newcomer(came.map(load).into_iter().enumerate()).unwrap();
            came[number] += 1;
        }
        // As many to each as it has time for, and then by turns.
        assert_eq!(came, [1_000; 3]);
        assert_eq!(
            Load { busy: 0.3, clients: 9 }.with(100).busy,
            0.3,
            "those were there at the last look, too"
        );
    }

    #[test]
    fn one_is_like_all_the_others_or_does_it_all() {
        let cases: [(&[u32], [usize; 2]); 5] = [
            (&[800, 800], [2, 2]),
            (&[800, 0], [1, 2]),
            (&[600, 250], [1, 2]),
            (&[0, 0], [1, 1]),
            (&[500, 500, 490, 510], [4, 4]),
        ];
        for (busy, expected) in cases {
            assert_eq!([0, 1].map(|n| alike(busy[n], busy.iter().copied())), expected, "{busy:?}");
        }
    }

    #[test]
    fn clients_gather_where_there_is_time_and_spread_where_there_is_none() {
        assert_eq!(first(&loads(&[0.2, 0.2])), [(1, 0, 1.0)]);
        assert_eq!(first(&loads(&[0.3, 0.2])), []);
        assert_eq!(first(&loads(&[0.8, 0.0])), [(0, 1, 0.5)]);
        assert_eq!(first(&loads(&[0.9, 0.8])), []);
        assert_eq!(first(&loads(&[0.3, 0.2, 0.2, 0.1])), [(3, 0, 1.0), (2, 1, 1.0)]);
        // Nobody is there who could, or whom they could go to.
        assert_eq!(first(&[Some(Load { busy: 0.1, clients: 1 }), Some(Load::default())]), []);
        assert_eq!(first(&[None, Some(Load { busy: 1.0, clients: 5 })]), []);
        assert_eq!(first(&[]), []);
    }

    #[test]
    fn one_that_cannot_be_relieved_keeps_nobody_else_from_it() {
        let mut busy = loads(&[1.0, 0.9, 0.0, 0.2, 0.1]);
        let found = first(&busy);
        assert_eq!(found.iter().map(|m| m.0).collect::<Vec<_>>(), [0, 1]);
        assert!(found.iter().all(|m| m.2 <= 0.5));
        // A worker that is gone, or has no clients, is neither.
        busy[0] = None;
        busy[2] = Some(Load { busy: 0.95, clients: 0 });
        assert_eq!(first(&busy).iter().map(|m| (m.0, m.1)).collect::<Vec<_>>(), [(1, 4)]);
    }

    #[test]
    fn what_spreading_does_not_mend_is_tried_less_and_less_often() {
        let (mut director, busy) = (Director::default(), loads(&[1.0, 0.0]));
        let told = |director: &mut Director, looks: u32| {
            let mut salts: Vec<_> = (0..looks).flat_map(|_| director.look(&busy)).map(|m| m.salt).collect();
            salts.dedup();
            salts.len()
        };
        assert_eq!(told(&mut director, 100), 6);
        assert!(told(&mut director, 10_000) < 30);
        // Once there was no need for long, it is as at first.
        for _ in 0..2_000 {
            assert!(director.look(&loads(&[0.6, 0.5])).is_empty());
        }
        assert_eq!(told(&mut director, 100), 6);
    }

    /// Clients of so much work each, and the workers that they are on.
    struct World {
        clients: Vec<(f64, usize)>,
        /// What is measured lags behind.
        measured: Vec<f64>,
    }

    impl World {
        fn look(&mut self, director: &mut Director) -> usize {
            let there = |number| self.clients.iter().filter(move |(_, on)| *on == number);
            for (number, measured) in self.measured.iter_mut().enumerate() {
                let busy = there(number).map(|(work, _)| work).sum::<f64>().min(1.0);
                *measured = (*measured + busy) / 2.0;
            }
            let load =
                |(number, busy): (usize, &f64)| Some(Load { busy: *busy, clients: there(number).count() });
            let moves = director.look(&self.measured.iter().enumerate().map(load).collect::<Vec<_>>());
            for m in &moves {
                assert!(m.from != m.to && m.share > 0.0 && m.share <= 1.0);
                assert!(moves.iter().all(|other| other.from != m.to && other.to != m.from));
            }
            let mut moved = 0;
            for (pid, (_, on)) in self.clients.iter_mut().enumerate() {
                if let Some(to) = moves.iter().find(|m| m.from == *on && m.means(pid as u32 * 64)) {
                    *on = to.to;
                    moved += 1;
                }
            }
            moved
        }

        fn most(&self) -> f64 {
            self.measured.iter().copied().fold(0.0, f64::max)
        }
    }

    proptest! {
        /// Many clients: it comes to rest within seconds, and nobody is too busy then.
        #[test]
        fn many_clients_come_to_rest(
            clients in proptest::collection::vec((0.001..0.02f64, 0..4_usize), 1..100),
            workers in 4..6_usize,
        ) {
            let mut world = World { clients, measured: vec![0.0; workers] };
            let mut director = Director::default();
            for _ in 0..600 {
                world.look(&mut director);
            }
            prop_assert!(world.most() <= FULL + ALIKE, "{:?}", world.measured);
            let moved: usize = (0..600).map(|_| world.look(&mut director)).sum();
            prop_assert!(moved <= world.clients.len(), "{moved}");
        }

        /// Clients that are too much for any worker do not make everybody move for ever.
        #[test]
        fn heavy_clients_do_not_go_round_and_round(
            clients in proptest::collection::vec((0.001..1.0f64, 0..3_usize), 1..8),
        ) {
            let mut world = World { clients, measured: vec![0.0; 3] };
            let mut director = Director::default();
            let count = world.clients.len();
            let moved: usize = (0..3_000).map(|_| world.look(&mut director)).sum();
            prop_assert!(moved <= 20 * count, "{moved} of {count}");
        }
    }
}
