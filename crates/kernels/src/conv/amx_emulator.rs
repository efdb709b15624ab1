//! AMX for tests on CPUs without it: every instruction traps there (SIGILL), and the handler
//! does what Intel's manual says the instruction does.
//!
//! It decodes the bytes themselves, so encodings, tile shapes and strides are tested as well
//! as results. Whatever it does not know ends the process.

#![allow(clippy::print_stderr, reason = "a signal handler has no other way to say it")]

use std::cell::RefCell;
use std::sync::Once;

const TILES: usize = 8;

/// Elements of a row and of a column.
type Elements<'a> = &'a mut dyn Iterator<Item = [[u8; 4]; 2]>;

/// One thread's tile registers.
struct Tiles {
    rows: [usize; TILES],
    bytes: [usize; TILES],
    data: [[[u8; 64]; 16]; TILES],
}

thread_local! {
    static TILE_STATE: RefCell<Tiles> = const {
        RefCell::new(Tiles { rows: [0; TILES], bytes: [0; TILES], data: [[[0; 64]; 16]; TILES] })
    };
}

/// Answers AMX instructions of all threads from now on.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    // SAFETY: the handler only touches what the trapping instruction may touch, and runs on
    // the stack of the thread that trapped.
    ONCE.call_once(|| unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()), 0);
    });
}

extern "C" fn on_trap(_: libc::c_int, _: *const libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the context of the trap.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let place = registers[libc::REG_RIP as usize];
    // SAFETY: instructions are readable; no AMX instruction is longer, and code goes on after.
    let code = unsafe { *std::ptr::with_exposed_provenance::<[u8; 10]>(place as usize) };
    let length = TILE_STATE.with_borrow_mut(|tiles| execute(tiles, code, registers));
    let Some(length) = length else {
        eprintln!("not an AMX instruction: {code:02x?}");
        std::process::abort();
    };
    registers[libc::REG_RIP as usize] = place + length as i64;
}

/// Executes one instruction and returns its length.
fn execute(tiles: &mut Tiles, code: [u8; 10], registers: &[i64]) -> Option<usize> {
    let [0xc4, inverted, last, opcode, modrm, ..] = code else { return None };
    // Map 0F38, W 0, L 0.
    if inverted & 0x1f != 2 || last & 0x84 != 0 {
        return None;
    }
    let (kind, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let third = usize::from(!last >> 3 & 7);
    match (opcode, last & 3, kind) {
        (0x5c, 2, 3) => tiles.multiply(reg, rm, third, pairs)?,
        (0x5e, 2, 3) => tiles.multiply(reg, rm, third, quads)?,
        (0x49, 0, 3) if modrm == 0xc0 => tiles.rows = [0; TILES],
        (0x49, 3, 3) if rm == 0 => tiles.data[reg] = [[0; 64]; 16],
        (0x49, 0, _) => {
            let (address, _, length) = operand(code, registers)?;
            // SAFETY: the instruction reads 64 bytes here.
            tiles.configure(unsafe { &*std::ptr::with_exposed_provenance::<[u8; 64]>(address) })?;
            return Some(length);
        }
        (0x4b, 3, 0..=2) => {
            let (address, stride, length) = operand(code, registers)?;
            for row in 0..tiles.rows[reg] {
                let from = std::ptr::with_exposed_provenance::<u8>(address + row * stride);
                let to = &mut tiles.data[reg][row];
                to.fill(0);
                // SAFETY: the instruction reads the configured bytes of each row.
                unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, tiles.bytes[reg]) };
            }
            return (tiles.rows[reg] > 0).then_some(length);
        }
        (0x4b, 2, 0..=2) => {
            let (address, stride, length) = operand(code, registers)?;
            for row in 0..tiles.rows[reg] {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(address + row * stride);
                // SAFETY: the instruction writes the configured bytes of each row.
                unsafe {
                    to.copy_from_nonoverlapping(tiles.data[reg][row].as_ptr(), tiles.bytes[reg]);
                }
            }
            return (tiles.rows[reg] > 0).then_some(length);
        }
        _ => return None,
    }
    Some(5)
}

/// The memory operand: address, stride (of an index register), length of the instruction.
fn operand(code: [u8; 10], registers: &[i64]) -> Option<(usize, usize, usize)> {
    /// General registers in the order of their numbers in instructions.
    const NUMBERED: [libc::c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    let [_, inverted, _, _, modrm, sib, ..] = code;
    let value = |number: u8| registers[NUMBERED[usize::from(number)] as usize];
    let high = |bit: u8| (!inverted >> bit & 1) << 3;
    let (kind, rm) = (modrm >> 6, modrm & 7);
    let mut length = 5;
    let (mut address, mut stride) = (0, 0);
    if rm == 4 {
        length += 1;
        let (base, index) = (sib & 7 | high(5), sib >> 3 & 7 | high(6));
        if base & 7 == 5 && kind == 0 {
            return None;
        }
        address += value(base);
        if index != 4 {
            stride = value(index) << (sib >> 6);
        }
    } else if rm == 5 && kind == 0 {
        return None;
    } else {
        address += value(rm | high(5));
    }
    match kind {
        0 => {}
        1 => {
            address += i64::from(code[length] as i8);
            length += 1;
        }
        2 => {
            let bytes = code[length..length + 4].try_into().ok()?;
            address += i64::from(i32::from_le_bytes(bytes));
            length += 4;
        }
        _ => return None,
    }
    Some((address as usize, stride as usize, length))
}

impl Tiles {
    /// What `ldtilecfg` refuses gives `None`.
    fn configure(&mut self, palette: &[u8; 64]) -> Option<()> {
        if palette[0] != 1 || palette[1..16].iter().chain(&palette[32..48]).any(|&b| b != 0) {
            return None;
        }
        for tile in 0..TILES {
            let bytes = u16::from_le_bytes([palette[16 + 2 * tile], palette[17 + 2 * tile]]);
            (self.bytes[tile], self.rows[tile]) = (bytes.into(), palette[48 + tile].into());
            if self.bytes[tile] > 64 || self.rows[tile] > 16 {
                return None;
            }
        }
        self.data = [[[0; 64]; 16]; TILES];
        Some(())
    }

    /// Rows of `a` times columns of `b`, by `dot` of a sum and all their elements.
    fn multiply(
        &mut self,
        sums: usize,
        a: usize,
        b: usize,
        dot: fn([u8; 4], Elements<'_>) -> [u8; 4],
    ) -> Option<()> {
        let fits = self.rows[sums] == self.rows[a]
            && self.bytes[a] == 4 * self.rows[b]
            && self.bytes[sums] == self.bytes[b]
            && self.rows[sums] > 0
            && self.rows[b] > 0
            && sums != a
            && sums != b
            && a != b;
        let element = |row: &[u8; 64], at: usize| std::array::from_fn(|k| row[4 * at + k]);
        for m in 0..self.rows[sums] {
            for n in 0..self.bytes[sums] / 4 {
                let mut elements = (0..self.rows[b])
                    .map(|k| [element(&self.data[a][m], k), element(&self.data[b][k], n)]);
                let sum = dot(element(&self.data[sums][m], n), &mut elements);
                self.data[sums][m][4 * n..4 * n + 4].copy_from_slice(&sum);
            }
        }
        fits.then_some(())
    }
}

/// `tdpbf16ps`.
fn pairs(sum: [u8; 4], elements: Elements<'_>) -> [u8; 4] {
    let halves = |[a, b, c, d]: [u8; 4]| {
        [[a, b], [c, d]].map(|half| half::bf16::from_le_bytes(half).to_f32())
    };
    let (mut even, mut odd) = (0.0_f32, 0.0_f32);
    for [a, b] in elements {
        let (a, b) = (halves(a), halves(b));
        (even, odd) = (a[0].mul_add(b[0], even), a[1].mul_add(b[1], odd));
    }
    (f32::from_le_bytes(sum) + (even + odd)).to_le_bytes()
}

/// `tdpbsud`: signed bytes times unsigned ones.
fn quads(sum: [u8; 4], elements: Elements<'_>) -> [u8; 4] {
    let products = elements.flat_map(|[a, b]| a.into_iter().zip(b));
    let products = products.map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b));
    (i32::from_le_bytes(sum) + products.sum::<i32>()).to_le_bytes()
}
