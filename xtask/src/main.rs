//! Developer tasks: `cargo xtask test`.

use std::process::{Command, ExitCode};

const STEPS: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    &["test", "--workspace"],
];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("test") => {
            for step in STEPS {
                println!("== cargo {}", step.join(" "));
                let done = Command::new(env!("CARGO")).args(*step).status().is_ok_and(|s| s.success());
                if !done {
                    return ExitCode::FAILURE;
                }
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: cargo xtask test");
            ExitCode::from(2)
        }
    }
}
