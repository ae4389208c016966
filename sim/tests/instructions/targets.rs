//! Which cards run which targets.

use narrowgauge_sim::{CardProfile, FaultKind, Launch, Machine, Module, Schedule};

fn launch(target: &str, card: CardProfile) -> Result<(), FaultKind> {
    let text =
        format!(".version 9.0\n.target {target}\n.address_size 64\n.visible .entry k()\n{{\n ret;\n}}\n");
    let module = Module::parse(&text).unwrap();
    let mut machine = Machine::new(card);
    let launch = Launch {
        entry: "k",
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        params: &[],
        schedule: Schedule::default(),
    };
    machine.launch(&module, &launch).map(|_| ()).map_err(|fault| fault.kind)
}

#[test]
fn a_card_runs_its_own_target_and_older_plain_ones() {
    for target in ["sm_90a", "sm_90", "sm_89", "sm_80", "sm_75"] {
        assert_eq!(launch(target, CardProfile::H20), Ok(()), "{target}");
    }
    for target in ["sm_100a", "sm_100", "sm_120", "sm_89a", "sm_100f"] {
        let Err(FaultKind::Launch(what)) = launch(target, CardProfile::H800) else { panic!("{target} runs") };
        assert!(what.contains(target) && what.contains("the card has 9.0"), "{what}");
    }
    let ada = CardProfile { compute_capability: (8, 9), ..CardProfile::H20 };
    assert!(launch("sm_80", ada.clone()).is_ok() && launch("sm_90a", ada).is_err());
}

#[test]
fn versions_and_targets_must_fit() {
    for (head, what) in [
        (".version 7.8\n.target sm_90a\n", "needs PTX version 8.0"),
        (".version 9.0\n.target hopper\n", "hopper"),
    ] {
        let text = format!("{head}.address_size 64\n.visible .entry k()\n{{\n ret;\n}}\n");
        let error = Module::parse(&text).map(|_| ()).unwrap_err();
        assert!(error.what.contains(what) && error.line == 2, "{error}");
    }
}
