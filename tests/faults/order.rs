//! Devices, streams, tensors, views, graphs and events, dropped in every order.

use narrowgauge::norm::Add;
use narrowgauge::{Device, Tensor, bf16};
use std::any::Any;

/// Makes one of everything, with work that is under way, and drops them in one order after the other.
pub fn every_order(open: impl Fn() -> Device, begin: impl Fn()) {
    const OWNERS: usize = 5;
    let mut orders = vec![Vec::new()];
    for _ in 0..OWNERS {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<usize>| {
                let left = (0..OWNERS).filter(|owner| !order.contains(owner));
                left.map(|owner| [&order[..], &[owner]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    for order in orders {
        begin();
        let device = open();
        let (first, second) = (device.stream(), device.new_stream().unwrap());
        let rows = || -> Tensor<bf16> { device.full(&[2, 8], bf16::ONE).unwrap() };
        let (a, b, out) = (rows(), rows(), rows());
        let graph = first.capture(|stream| Add::new(&a, &b, &out).launch(stream)).unwrap();
        Add::new(&a, &b, &out).launch(&first).unwrap();
        graph.launch(&second).unwrap();
        let view = out.slice(0, 1..2).unwrap();
        let event = second.record_event().ok();
        let mut owners: Vec<Option<Box<dyn Any>>> = vec![
            Some(Box::new(device)),
            Some(Box::new((first, event))),
            Some(Box::new((second, b))),
            Some(Box::new((a, out))),
            Some(Box::new((graph, view))),
        ];
        assert_eq!(owners.len(), OWNERS);
        for owner in order {
            owners[owner] = None;
        }
    }
}

#[cfg(feature = "sim")]
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn owners_may_go_in_any_order_on_the_simulated_card() {
    every_order(|| Device::simulated(narrowgauge::Card::H20).unwrap(), || ());
}

/// What is left after everything else went still works.
#[cfg(feature = "sim")]
#[test]
#[cfg_attr(not(ng_kernels), ignore = "needs compiled kernels: run cargo xtask setup")]
fn a_view_alone_keeps_its_device() {
    let view = {
        let device = Device::simulated(narrowgauge::Card::H20).unwrap();
        let a: Tensor<bf16> = device.full(&[2, 8], bf16::ONE).unwrap();
        let out = device.zeros(&[2, 8]).unwrap();
        device
            .stream()
            .capture(|s| Add::new(&a, &a, &out).launch(s))
            .unwrap()
            .launch(&device.stream())
            .unwrap();
        out.slice(0, 1..2).unwrap()
    };
    assert_eq!(view.to_vec().unwrap(), [bf16::from_f32(2.0); 8]);
    let more = view.device().full(&[8], bf16::ONE).unwrap();
    assert_eq!(more.to_vec().unwrap(), [bf16::ONE; 8]);
}
