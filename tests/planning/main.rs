//! Choosing a plan allocates nothing and takes little time.

use narrowgauge::Card;
use narrowgauge::gemm::plan;
use narrowgauge::gemm::published::shapes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator; counts the calls of each thread.
struct Counting;

// SAFETY: every call is passed on to the system's allocator with what the caller vouches for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_choice_allocates_nothing() {
    const ROUNDS: u32 = 20;
    let (shapes, cards) = (shapes(), [Card::H20, Card::H200]);
    // The first choices read the list.
    for shape in &shapes {
        black_box(plan::plan(&shape.problem, &cards[0], None));
    }
    let (before, start) = (ALLOCATIONS.get(), Instant::now());
    for _ in 0..ROUNDS {
        for card in &cards {
            for shape in &shapes {
                black_box(plan::plan(black_box(&shape.problem), card, None));
            }
        }
    }
    // Before anything is printed: a captured line allocates.
    let (allocations, time) = (ALLOCATIONS.get() - before, start.elapsed());
    let choices = ROUNDS * (cards.len() * shapes.len()) as u32;
    println!("{} ns a choice in this build", (time / choices).as_nanos());
    assert_eq!(allocations, 0);
}
