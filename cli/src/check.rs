//! `narrowgauge check`: every case of the crate's own verification, one line each.

use narrowgauge::Device;
use narrowgauge::verify;

/// Whether all cases whose `family/name` contains `filter` pass; an error where there is none.
pub fn run(device: &Device, filter: &str) -> Result<bool, String> {
    let named = |case: &verify::Case| format!("{}/{}", case.family, case.name);
    let cases: Vec<_> = verify::cases().into_iter().filter(|case| named(case).contains(filter)).collect();
    if cases.is_empty() {
        return Err(format!("no case has `{filter}` in its name"));
    }
    println!("{} cases on {}", cases.len(), device.name());
    let mut failed = 0;
    for case in &cases {
        match (case.run)(device) {
            Ok(()) => println!("ok    {}", named(case)),
            Err(reason) => {
                failed += 1;
                println!("FAIL  {}: {reason}", named(case));
            }
        }
    }
    println!("{} passed, {failed} failed", cases.len() - failed);
    Ok(failed == 0)
}
