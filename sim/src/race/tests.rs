//! Races among warps that a test moves by hand.

use super::*;

const ALL: u32 = u32::MAX;
fn spot(region: Region, at: usize, bytes: usize) -> Spot {
    Spot { region, at, bytes }
}

fn thread(warp: u32) -> Thread {
    Thread { warp, lane: 0, live: ALL }
}

fn atomic(scope: Scope) -> Manner {
    Manner { strong: Some(scope), ..Manner::WRITE }
}

const SHARED: Region = Region::Shared(0);

#[test]
fn blocks_know_their_cluster() {
    let layout = Layout { warps_per_block: 2, grid: [4, 2, 2], cluster: [2, 2, 1] };
    assert_eq!((layout.block(11), layout.index(5), layout.warps_of(5)), (5, [1, 1, 0], 10..12));
    assert_eq!([0, 1, 4, 5, 2, 6, 13].map(|b| layout.cluster_of(b)), [0, 0, 0, 0, 2, 2, 8]);
}

/// One block of four warps unless told otherwise.
fn block() -> Races {
    grid(1, 4)
}

fn grid(blocks: u32, warps_per_block: u32) -> Races {
    Races::new(Layout { warps_per_block, grid: [blocks, 1, 1], cluster: [1; 3] })
}

fn by(
    races: &mut Races,
    warp: u32,
    lanes: u32,
    manner: Manner,
    at: usize,
    bytes: usize,
) -> Result<(), Clash> {
    let access = races.begin(warp, 10 * warp + u32::from(manner.write), manner);
    (0..32)
        .filter(|&lane| lanes >> lane & 1 == 1)
        .try_for_each(|lane| races.access(&access, spot(SHARED, at, bytes), 1 << lane, || false))
}

fn bar_sync(races: &mut Races, warps: std::ops::Range<u32>) {
    warps.clone().for_each(|w| races.arrive((0, 0), w, ALL, ALL));
    races.open((0, 0));
    warps.for_each(|w| races.pass((0, 0), w, ALL, ALL, false));
}

#[test]
fn unordered_accesses_of_two_warps_race() {
    for (first, second, races_wanted) in [
        (Manner::WRITE, Manner::READ, true),
        (Manner::READ, Manner::WRITE, true),
        (Manner::WRITE, Manner::WRITE, true),
        (Manner::READ, Manner::READ, false),
        (atomic(Scope::Block), atomic(Scope::Card), false),
        (atomic(Scope::Block), Manner::READ, true),
        (Manner::READ, atomic(Scope::Block), true),
        (Manner::WRITE, atomic(Scope::Block), true),
    ] {
        let mut races = block();
        by(&mut races, 0, 1, first, 64, 4).unwrap();
        let clash = by(&mut races, 1, 1, second, 64, 4);
        assert_eq!(clash.is_err(), races_wanted, "{first:?} then {second:?}");
        if let Err(clash) = clash {
            assert_eq!((clash.at, clash.earlier.warp, clash.now.warp), (64, 0, 1));
            assert_eq!(clash.why, Why::Race);
        }
        let mut races = block();
        by(&mut races, 0, 1, first, 64, 4).unwrap();
        bar_sync(&mut races, 0..4);
        by(&mut races, 1, 1, second, 64, 4).unwrap();
    }
}

#[test]
fn neighbouring_bytes_do_not_race() {
    let mut races = block();
    by(&mut races, 0, 1, Manner::WRITE, 0, 16).unwrap();
    bar_sync(&mut races, 0..2);
    by(&mut races, 0, 1, Manner::WRITE, 0, 1).unwrap();
    by(&mut races, 1, 1, Manner::WRITE, 1, 1).unwrap();
    by(&mut races, 1, 1, Manner::READ, 2, 2).unwrap();
    assert_eq!(by(&mut races, 1, 1, Manner::READ, 0, 4).unwrap_err().at, 0);
}

#[test]
fn lanes_of_a_warp_are_ordered_by_warp_barriers_only() {
    let mut races = block();
    by(&mut races, 0, 1, Manner::WRITE, 0, 4).unwrap();
    by(&mut races, 0, 1, Manner::READ, 0, 4).unwrap();
    let clash = by(&mut races, 0, 2, Manner::READ, 0, 4).unwrap_err();
    assert_eq!((clash.earlier.lane, clash.now.lane), (0, 1));
    races.lanes(0).synchronise(ALL, ALL);
    by(&mut races, 0, 2, Manner::WRITE, 0, 4).unwrap();
    // The same value from several lanes is nobody's race; the caller says that it is the same.
    races.lanes(0).synchronise(ALL, ALL);
    let access = races.begin(0, 7, Manner::WRITE);
    races.access(&access, spot(SHARED, 32, 4), 1, || true).unwrap();
    races.access(&access, spot(SHARED, 32, 4), 2, || true).unwrap();
    assert!(races.access(&access, spot(SHARED, 32, 4), 4, || false).is_err());
}

#[test]
fn every_reader_must_be_done_before_a_write() {
    let mut races = block();
    for warp in 0..3 {
        by(&mut races, warp, ALL, Manner::READ, 128, 16).unwrap();
    }
    // Warp 3 hears of warps 0 and 1 only.
    for warp in 0..2 {
        races.arrive((0, 1), warp, ALL, ALL);
    }
    races.open((0, 1));
    races.pass((0, 1), 3, ALL, ALL, false);
    assert_eq!(by(&mut races, 3, 1, Manner::WRITE, 128, 4).unwrap_err().earlier.warp, 2);
    races.arrive((0, 2), 2, ALL, ALL);
    races.open((0, 2));
    races.pass((0, 2), 3, ALL, ALL, false);
    by(&mut races, 3, 1, Manner::WRITE, 128, 4).unwrap();
}

#[test]
fn a_lane_alone_does_not_release_for_its_warp() {
    let place = (0, 64);
    let mut races = block();
    races.barrier_init(place, 0, 0);
    by(&mut races, 0, ALL & !1, Manner::READ, 0, 4).unwrap();
    let access = races.begin(0, 1, Manner::WRITE);
    (0..32).for_each(|lane| {
        races.access(&access, spot(SHARED, 4096 + 4 * lane, 4), 1 << lane, || false).unwrap()
    });
    races.barrier_arrive(place, 0, 1, ALL);
    races.barrier_turn(place);
    races.barrier_wait(place, 1, ALL, ALL);
    by(&mut races, 1, 1, Manner::READ, 4096, 4).unwrap();
    assert!(by(&mut races, 1, 1, Manner::READ, 4100, 4).is_err());
}

#[test]
fn copies_are_seen_by_whoever_waits_for_their_phase() {
    let place = (0, 64);
    let mut races = block();
    races.barrier_init(place, 0, 0);
    assert_eq!(races.barrier_seen(place, 1, 0, false), Err(Unseen::Unordered));
    assert_eq!(races.barrier_seen(place, 0, 0, true), Err(Unseen::Unfenced));
    races.barriers_fenced(0, 1);
    assert_eq!(races.barrier_seen(place, 0, 0, true), Ok(()));
    bar_sync(&mut races, 0..4);
    assert_eq!(races.barrier_seen(place, 3, 9, true), Ok(()));
    let know = races.lanes(0).of(0).clone();
    let issued = races.begin_copy(place, false, 0, 5, Manner::ASYNC_WRITE);
    races.access_async(&issued, &know, Some(0), spot(SHARED, 1024, 256)).unwrap();
    assert!(by(&mut races, 2, 1, Manner::READ, 1024, 4).is_err());
    let done = races.begin_copy(place, true, 0, 5, Manner::ASYNC_WRITE);
    races.complete(&issued, &done, spot(SHARED, 1024, 256), 0);
    races.barrier_arrive(place, 0, 1, ALL);
    assert!(by(&mut races, 2, 1, Manner::READ, 1024, 4).is_err());
    races.barrier_turn(place);
    races.barrier_wait(place, 2, ALL, ALL);
    by(&mut races, 2, 1, Manner::READ, 1024, 4).unwrap();
    // The next copy into the stage must wait for that reader.
    let again = races.begin_copy(place, false, 0, 5, Manner::ASYNC_WRITE);
    let clash = races.access_async(&again, &know, Some(0), spot(SHARED, 1024, 256)).unwrap_err();
    assert_eq!((clash.earlier.warp, clash.why), (0, Why::Race));
}

#[test]
fn the_async_proxy_needs_a_fence_by_the_writer_or_behind_the_barrier() {
    for (before, after) in [(false, false), (true, false), (false, true)] {
        let mut races = block();
        by(&mut races, 0, 1, Manner::WRITE, 0, 16).unwrap();
        if before {
            races.lanes(0).fence_proxy(ALL, ALL, &[Space::Shared]);
        }
        bar_sync(&mut races, 0..2);
        if after {
            races.lanes(1).fence_proxy(ALL, ALL, &[Space::Shared]);
        }
        let know = races.lanes(1).of(0).clone();
        let store = races.begin_async(Agent::StoreRead(1, 0), 1, 1, 9, Manner::ASYNC_READ);
        let result = races.access_async(&store, &know, Some(0), spot(SHARED, 0, 16));
        match before || after {
            true => result.unwrap(),
            false => assert_eq!(result.unwrap_err().why, Why::Proxy),
        }
    }
}

#[test]
fn a_stores_source_is_free_after_its_wait() {
    let mut races = block();
    let know = races.lanes(1).of(0).clone();
    let agent = Agent::StoreRead(1, 0);
    let store = races.begin_async(agent, 1, 1, 9, Manner::ASYNC_READ);
    races.access_async(&store, &know, Some(0), spot(SHARED, 0, 64)).unwrap();
    assert!(by(&mut races, 1, 1, Manner::WRITE, 16, 4).is_err());
    races.observe(1, 1, ALL, agent, 1);
    by(&mut races, 1, 1, Manner::WRITE, 16, 4).unwrap();
}

#[test]
fn flags_in_memory_carry_knowledge_between_blocks() {
    let flag = (Region::Global(1), 0);
    let data = Region::Global(0);
    // (fence or release by the writer, scope of the write, acquire by the reader): seen?
    for (release, scope, acquire, seen) in [
        (true, Scope::Card, true, true),
        (true, Scope::Block, true, false),
        (false, Scope::Card, true, false),
        (true, Scope::Card, false, false),
    ] {
        let mut races = grid(2, 1);
        let write = races.begin(0, 1, Manner::WRITE);
        races.access(&write, spot(data, 0, 4), 1, || false).unwrap();
        races.post(flag, thread(0), scope, release, false);
        races.find(flag, thread(1), scope, acquire);
        let read = races.begin(1, 2, Manner::READ);
        assert_eq!(
            races.access(&read, spot(data, 0, 4), 1, || false).is_ok(),
            seen,
            "{release} {scope:?} {acquire}"
        );
        if !acquire {
            races.lanes(1).fence(ALL, ALL, Scope::Card);
            let read = races.begin(1, 3, Manner::READ);
            races.access(&read, spot(data, 0, 4), 1, || false).unwrap();
        }
    }
}

#[test]
fn crowds_of_readers_still_race_with_a_block_that_never_heard_of_others() {
    let mut races = grid(200, 1);
    let data = Region::Global(0);
    for block in 0..150 {
        let read = races.begin(block, 2, Manner::READ);
        races.access(&read, spot(data, 0, 4), ALL, || false).unwrap();
    }
    let write = races.begin(199, 3, Manner::WRITE);
    assert!(races.access(&write, spot(data, 0, 4), 1, || false).is_err());
    // Many blocks adding to one word are no race; a plain read among them is.
    for block in 0..150 {
        let add = races.begin(block, 4, atomic(Scope::Card));
        races.access(&add, spot(data, 64, 4), 1, || false).unwrap();
    }
    let read = races.begin(199, 5, Manner::READ);
    assert!(races.access(&read, spot(data, 64, 4), 1, || false).is_err());
}
