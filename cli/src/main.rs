//! The `narrowgauge` command.

fn main() {
    println!("narrowgauge {}", env!("CARGO_PKG_VERSION"));
}
