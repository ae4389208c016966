//! A profile as tables.

use super::against::Against;
use super::report::{Kernel, Report, Traffic};
use super::table::{Table, count, mean, number};
use narrowgauge::sim::Class;
use narrowgauge::sim::profiler::{Counts, RoleProfile};
use std::fmt::Write;

/// Hot spots of one kernel that are shown.
const MOST_SPOTS: usize = 6;

/// A text of at most so many characters: names of C++ templates have no end.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// The report with so many of the hottest lines.
pub fn of(report: &Report, lines: usize) -> String {
    let mut out = format!("{} on {}: counts, never times\n", report.name, report.device);
    // Writing to a string cannot fail.
    let _ = operands(&mut out, &report.operands);
    for kernel in &report.kernels {
        let _ = one(&mut out, kernel, lines);
    }
    let _ = tensor(&mut out, report.ideal_macs, report.kernels.iter());
    if let Some(against) = &report.against {
        let _ = versus(&mut out, report, against, lines);
    }
    out
}

fn operands(out: &mut String, traffic: &[Traffic]) -> std::fmt::Result {
    let mut table = Table::new(&["<bytes of", "<", "ideal", "unique", "requested", "of ideal"]);
    let row = |name: &str, how: &str, [ideal, unique, requested]: [u64; 3]| {
        let share =
            if ideal == 0 { "·".to_owned() } else { format!("{:.2}x", requested as f64 / ideal as f64) };
        [name.to_owned(), how.to_owned(), count(ideal), count(unique), count(requested), share]
    };
    let mut sum = [0; 3];
    for operand in traffic {
        let values = [operand.ideal, operand.unique, operand.requested];
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        table.row(row(&operand.name, operand.how, values));
    }
    table.row(row("all", "", sum));
    write!(out, "\n{}", table.text("  "))
}

fn one(out: &mut String, kernel: &Kernel, lines: usize) -> std::fmt::Result {
    let profile = &kernel.profile;
    let product = |extents: [u32; 3]| extents.iter().map(|&extent| u64::from(extent)).product::<u64>();
    writeln!(out, "\n{}", short(&profile.kernel, 100))?;
    write!(
        out,
        "  {} blocks of {} threads, {} bytes of shared memory",
        number(product(profile.grid)),
        product(profile.block),
        number(profile.shared_bytes.into())
    )?;
    if profile.shared_written < profile.shared_bytes {
        write!(out, " ({} written)", number(profile.shared_written.into()))?;
    }
    if product(profile.cluster) > 1 {
        write!(out, ", clusters of {}", product(profile.cluster))?;
    }
    match &kernel.resources {
        Ok(resources) if resources.stack == 0 => {
            writeln!(out, "; {} registers, nothing spilled", resources.registers)?;
        }
        Ok(resources) => {
            write!(out, "; {} registers, {} bytes of stack", resources.registers, resources.stack)?;
            match &kernel.code {
                Ok(code) => writeln!(out, " ({} accesses to it in the code)", code.local_accesses)?,
                Err(_) => writeln!(out, " (spills or local arrays)")?,
            }
        }
        Err(why) => writeln!(out, "; registers unknown: {why}")?,
    }
    match &kernel.code {
        Ok(code) => writeln!(out, "  {} instructions of machine code", number(code.instructions as u64))?,
        Err(why) => writeln!(out, "  machine code unknown: {why}")?,
    }
    write!(out, "\n{}", roles(kernel).text("  "))?;
    let trips = trips(kernel);
    if !trips.is_empty() {
        write!(out, "\n{}", trips.text("  "))?;
    }
    for role in &profile.roles {
        if let Some((found, trips)) = kernel.sass_loop(role) {
            let mut opcodes: Vec<_> = found.opcodes.iter().collect();
            opcodes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let most: Vec<_> =
                opcodes.iter().take(8).map(|(opcode, count)| format!("{count} {opcode}")).collect();
            let name = kernel.role_name(role);
            let trips = if trips > 1 { format!(", {trips} trips") } else { String::new() };
            writeln!(out, "  machine code of the {name}{trips}: {}, …", most.join(", "))?;
        }
    }
    writeln!(
        out,
        "\n  bank-conflict wavefronts {}, waits in vain {}",
        number(profile.bank_conflicts()),
        number(profile.waits())
    )?;
    let spots = profile.hot_spots();
    for spot in spots.iter().take(MOST_SPOTS) {
        writeln!(out, "  {spot}")?;
    }
    if spots.len() > MOST_SPOTS {
        writeln!(out, "  and {} more like these", spots.len() - MOST_SPOTS)?;
    }
    if lines > 0 {
        write!(out, "\n{}", hottest(kernel, lines).text("  "))?;
    }
    Ok(())
}

/// Classes that any of the counts has.
fn classes<'a>(all: impl Iterator<Item = &'a Counts> + Clone) -> Vec<Class> {
    Class::ALL.into_iter().filter(|&class| all.clone().any(|counts| counts.class(class) > 0)).collect()
}

fn lines_of(kernel: &Kernel, role: &RoleProfile) -> String {
    role.main_loop.map_or("·".to_owned(), |index| {
        let found = &kernel.profile.loops[index];
        format!("{}–{}", found.line, found.last_line)
    })
}

fn roles(kernel: &Kernel) -> Table {
    let roles = &kernel.profile.roles;
    let classes = classes(roles.iter().map(|role| &role.counts));
    let mut head = vec!["<warp instructions of", "warps", "all", "polling"];
    head.extend(classes.iter().map(|class| class.name()));
    let mut table = Table::new(&head);
    for role in roles {
        let mut row = vec![
            kernel.role_name(role).to_owned(),
            count(role.warps),
            count(role.counts.executions),
            count(role.counts.polling),
        ];
        row.extend(classes.iter().map(|&class| count(role.counts.class(class))));
        table.row(row);
    }
    table
}

fn trips(kernel: &Kernel) -> Table {
    let with_loop = || kernel.profile.roles.iter().filter(|role| role.trips > 0);
    let classes = classes(with_loop().map(|role| &role.in_loop));
    let mut head = vec!["<per trip of", "PTX lines", "trips", "all", "(polling)"];
    head.extend(classes.iter().map(|class| class.name()));
    head.push("SASS");
    let mut table = Table::new(&head);
    for role in with_loop() {
        let per = |value: u64| mean(value as f64 / role.trips as f64);
        let mut row = vec![
            kernel.role_name(role).to_owned(),
            lines_of(kernel, role),
            count(role.trips),
            mean(role.per_trip().unwrap_or(0.0)),
            per(role.in_loop.polling),
        ];
        row.extend(classes.iter().map(|&class| per(role.in_loop.working_class(class))));
        let sass = kernel.sass_loop(role);
        row.push(
            sass.map_or("?".to_owned(), |(found, trips)| mean(found.instructions as f64 / trips as f64)),
        );
        table.row(row);
    }
    table
}

fn hottest(kernel: &Kernel, most: usize) -> Table {
    let profile = &kernel.profile;
    let all = profile.executions().max(1);
    let head =
        ["line", "warp instr.", "share", "lanes", "sectors", "conflicts", "waits", "tensor MACs", "<PTX"];
    let mut table = Table::new(&head);
    for line in kernel.hottest(most) {
        let text: String = kernel.line(line.line).split_whitespace().collect::<Vec<_>>().join(" ");
        table.row([
            line.line.to_string(),
            count(line.executions),
            format!("{:.1} %", 100.0 * line.executions as f64 / all as f64),
            mean(line.lanes as f64 / line.executions as f64),
            count(line.load_sectors + line.store_sectors),
            count(line.bank_conflicts),
            count(line.waits),
            count(line.tensor_macs),
            short(&text, 72),
        ]);
    }
    table
}

fn tensor<'a>(out: &mut String, ideal: u64, kernels: impl Iterator<Item = &'a Kernel>) -> std::fmt::Result {
    let done: u64 = kernels.map(|kernel| kernel.profile.tensor_macs()).sum();
    if ideal == 0 && done == 0 {
        return Ok(());
    }
    let share = if ideal == 0 { String::new() } else { format!(" ({:.2}x)", done as f64 / ideal as f64) };
    writeln!(out, "\n  tensor multiply-accumulates: ideal {}, done {}{share}", number(ideal), number(done))
}

type Figure<'a> = &'a dyn Fn(&Kernel) -> u64;

fn versus(out: &mut String, report: &Report, against: &Against, lines: usize) -> std::fmt::Result {
    writeln!(out, "\n--- against ---")?;
    operands(out, &against.operands)?;
    one(out, &against.kernel, lines)?;
    tensor(out, report.ideal_macs, std::iter::once(&against.kernel))?;
    let sum = |f: &dyn Fn(&Kernel) -> u64| report.kernels.iter().map(f).sum::<u64>();
    let theirs = &against.kernel;
    let moved = |kernel: &Kernel| {
        let (loads, stores) = kernel.profile.requested_sectors();
        32 * (loads + stores)
    };
    let mut table = Table::new(&["<compared", "ours", "theirs", "theirs / ours"]);
    let figures: [(&str, Figure<'_>); 5] = [
        ("warp instructions", &|kernel| kernel.profile.executions()),
        ("bytes requested", &moved),
        ("bank-conflict wavefronts", &|kernel| kernel.profile.bank_conflicts()),
        ("tensor MACs", &|kernel| kernel.profile.tensor_macs()),
        ("waits in vain", &|kernel| kernel.profile.waits()),
    ];
    for (name, figure) in figures {
        let (a, b) = (sum(figure), figure(theirs));
        let share = if a == 0 { "·".to_owned() } else { format!("{:.2}", b as f64 / a as f64) };
        table.row([name.to_owned(), count(a), count(b), share]);
    }
    write!(out, "\n{}", table.text("  "))?;
    for difference in &against.differences {
        let (all, largest, of) = (difference.elements, difference.largest, difference.of);
        let name = &difference.operand;
        match (difference.different, difference.nan) {
            (0, _) => writeln!(out, "  {name}: all {} elements are the same", number(all as u64))?,
            (some, 0) => writeln!(
                out,
                "  {name}: {} of {} elements differ, by {largest:.3e} at most, where ours reach {of:.3e}",
                number(some as u64),
                number(all as u64)
            )?,
            (_, nan) => writeln!(out, "  {name}: {} elements are NaN on one side only", number(nan as u64))?,
        }
    }
    // Hot spots have been printed.
    let spots = theirs.profile.hot_spots();
    let known = |warning: &str| {
        spots.iter().any(|spot| warning.contains(&format!("(PTX line {})", spot.line().line)))
    };
    for warning in against.warnings.iter().filter(|warning| !known(warning)) {
        writeln!(out, "  warning: {warning}")?;
    }
    Ok(())
}
