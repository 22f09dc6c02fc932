// Package nor models a NOR flash chip, strictly: what hardware merely punishes
// (a unit programmed twice, an unaligned or far-off access) it refuses. It keeps
// wear per sector and the time that a real chip would have taken, and it can lose
// power before, inside or after any operation.
//
// What the model does and where its figures come from: docs/design/flash.md. It
// is not safe for concurrent use, but for CutPower.
package nor

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/runnel-fota/runnel/core/flash"
)

// Config describes a chip. Sizes are bytes; zero fields take a W25Q32's values.
type Config struct {
	Size           uint32
	EraseSize      uint32
	BlockEraseSize uint32 // NoBlocks: the chip has none
	ProgramSize    uint32
	// Encrypt stores ciphertext, in units of at least 16 bytes, so that an erased
	// byte reads as noise, as on a chip with flash encryption.
	Encrypt bool
	Timing  Timing
	Seed    uint64 // of everything random: tears, marginal bits
}

// NoBlocks as Config.BlockEraseSize: sectors only.
const NoBlocks = 1

const pageSize = 256 // a program command does not cross it

// Kind of an operation.
type Kind uint8

const (
	Program Kind = iota + 1
	Erase
)

func (k Kind) String() string {
	if k == Erase {
		return "erase"
	}
	return "program"
}

// Op is one operation as the chip executes it: a program of at most a page, an
// erase of one sector or block.
type Op struct {
	Kind Kind
	Off  uint32
	Len  uint32
}

func (o Op) String() string { return fmt.Sprintf("%s 0x%06x +%d", o.Kind, o.Off, o.Len) }

// Stats counts what the chip did.
type Stats struct {
	Programs, SectorErases, BlockErases uint64
	BytesProgrammed, BytesRead          uint64
}

// Ops is the number of operations that change flash.
func (s Stats) Ops() uint64 { return s.Programs + s.SectorErases + s.BlockErases }

// Chip is one flash chip.
type Chip struct {
	cfg   Config
	geo   flash.Geometry
	mem   []byte
	used  []uint64 // a bit per program unit: programmed since the last erase
	wear  []uint32 // erases per sector
	shaky []uint64 // a bit per sector: an erase was cut, its bits are marginal
	block cipher.Block
	rng   *rand.Rand
	file  disk
	lock  unlocker

	page [pageSize]byte // on its way into the cells; a field, so that no operation allocates
	unit [16]byte       // of the cipher

	clock  time.Duration
	stats  Stats
	misuse uint64
	log    func(Op)

	op     Op     // that SetCut's function is asked about, for Fork
	opData []byte // what it programs; the caller's

	cut      func(Op) Cut
	fail     func(Op) error
	pull     atomic.Bool // CutPower was called
	dead     bool
	diskErr  error
	readFlip func(off uint32, p []byte)
}

var _ flash.Device = (*Chip)(nil)

// New makes a blank chip in memory.
func New(cfg Config) (*Chip, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Chip{
		cfg: cfg,
		geo: flash.Geometry{Size: cfg.Size, EraseSize: cfg.EraseSize, BlockEraseSize: cfg.BlockEraseSize,
			ProgramSize: cfg.ProgramSize, ErasedByte: 0xFF, ErasedReadable: !cfg.Encrypt},
		mem:   make([]byte, cfg.Size),
		used:  make([]uint64, (cfg.Size/cfg.ProgramSize+63)/64),
		wear:  make([]uint32, cfg.Size/cfg.EraseSize),
		shaky: make([]uint64, (cfg.Size/cfg.EraseSize+63)/64),
		rng:   rand.New(rand.NewPCG(cfg.Seed, 0x6e6f72)),
	}
	if cfg.BlockEraseSize == NoBlocks {
		c.geo.BlockEraseSize = 0
	}
	for i := range c.mem {
		c.mem[i] = 0xFF
	}
	if cfg.Encrypt {
		var key [16]byte
		binary.LittleEndian.PutUint64(key[:], cfg.Seed+1)
		b, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		c.block = b
	}
	return c, nil
}

func (cfg Config) withDefaults() Config {
	def := func(v *uint32, d uint32) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.Size, 4<<20)
	def(&cfg.EraseSize, 4096)
	def(&cfg.BlockEraseSize, 65536)
	def(&cfg.ProgramSize, 1)
	if cfg.Encrypt && cfg.ProgramSize < 16 {
		cfg.ProgramSize = 16
	}
	if cfg.Timing == (Timing{}) {
		cfg.Timing = Typical
	}
	return cfg
}

func (cfg Config) validate() error {
	switch {
	case cfg.EraseSize&(cfg.EraseSize-1) != 0 || cfg.EraseSize < pageSize:
		return fmt.Errorf("nor: erase size %d is not a power of two of at least %d", cfg.EraseSize, pageSize)
	case cfg.Size%cfg.EraseSize != 0 || cfg.Size > 128<<20:
		return fmt.Errorf("nor: size %d is not a multiple of the erase size up to 128 MiB", cfg.Size)
	case cfg.ProgramSize > pageSize || cfg.ProgramSize&(cfg.ProgramSize-1) != 0:
		return fmt.Errorf("nor: program size %d is not a power of two up to %d", cfg.ProgramSize, pageSize)
	case cfg.BlockEraseSize != NoBlocks && cfg.BlockEraseSize%cfg.EraseSize != 0:
		return fmt.Errorf("nor: block size %d is not a multiple of the erase size", cfg.BlockEraseSize)
	}
	return nil
}

// Geometry of the chip.
func (c *Chip) Geometry() flash.Geometry { return c.geo }

// ReadAt fills p from off.
func (c *Chip) ReadAt(p []byte, off uint32) error {
	if c.dead {
		return flash.ErrPower
	}
	if off > c.geo.Size || uint32(len(p)) > c.geo.Size-off {
		c.misuse++
		return flash.ErrRange
	}
	c.stats.BytesRead += uint64(len(p))
	c.clock += c.cfg.Timing.read(len(p))
	if c.block == nil {
		copy(p, c.mem[off:])
	} else {
		c.decrypt(p, off)
	}
	c.shake(p, off)
	if c.readFlip != nil {
		c.readFlip(off, p)
	}
	return nil
}

// Program clears bits at off, a page at a time, in ascending order.
func (c *Chip) Program(p []byte, off uint32) error {
	if c.dead {
		return flash.ErrPower
	}
	if off > c.geo.Size || uint32(len(p)) > c.geo.Size-off {
		c.misuse++
		return flash.ErrRange
	}
	if off%c.geo.ProgramSize != 0 || uint32(len(p))%c.geo.ProgramSize != 0 {
		c.misuse++
		return flash.ErrAlign
	}
	for len(p) > 0 {
		n := min(pageSize-off%pageSize, uint32(len(p)))
		if err := c.programPage(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (c *Chip) programPage(p []byte, off uint32) error {
	if c.diskErr != nil {
		return c.diskErr
	}
	n := uint32(len(p))
	for u := off / c.geo.ProgramSize; u < (off+n)/c.geo.ProgramSize; u++ {
		if c.used[u/64]&(1<<(u%64)) != 0 {
			c.misuse++
			return flash.ErrNotBlank
		}
	}
	op := Op{Program, off, n}
	c.op, c.opData = op, p
	cut := c.before(op)
	if cut.When == CutBefore {
		return c.die()
	}
	failed := c.fails(op)
	c.stats.Programs++
	c.stats.BytesProgrammed += uint64(n)
	c.clock += c.cfg.Timing.program(n)
	data := c.page[:n]
	copy(data, p)
	if c.block != nil {
		c.encrypt(data, off)
	}
	if failed != nil {
		c.tearProgram(data, off, Cut{})
		return failed
	}
	if cut.When == CutInside {
		c.tearProgram(data, off, cut)
		return c.die()
	}
	c.clear(data, off, n)
	c.store(off, n)
	if cut.When == CutAfter {
		return c.die()
	}
	return c.diskErr
}

// clear programs whole units: bits go from 1 to 0 only.
func (c *Chip) clear(data []byte, off, n uint32) {
	for i := uint32(0); i < n; i++ {
		c.mem[off+i] &= data[i]
	}
	for u := off / c.geo.ProgramSize; u*c.geo.ProgramSize < off+n; u++ {
		c.used[u/64] |= 1 << (u % 64)
	}
}

// Erase erases sectors, by block where a block is aligned and inside, ascending.
func (c *Chip) Erase(off, length uint32) error {
	if c.dead {
		return flash.ErrPower
	}
	if off > c.geo.Size || length > c.geo.Size-off {
		c.misuse++
		return flash.ErrRange
	}
	if off%c.geo.EraseSize != 0 || length%c.geo.EraseSize != 0 {
		c.misuse++
		return flash.ErrAlign
	}
	for end := off + length; off < end; {
		n := c.geo.EraseSize
		if b := c.geo.BlockEraseSize; b != 0 && off%b == 0 && end-off >= b {
			n = b
		}
		if err := c.eraseUnit(off, n); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (c *Chip) eraseUnit(off, n uint32) error {
	if c.diskErr != nil {
		return c.diskErr
	}
	op := Op{Erase, off, n}
	c.op = op
	cut := c.before(op)
	if cut.When == CutBefore {
		return c.die()
	}
	failed := c.fails(op)
	if n == c.geo.EraseSize {
		c.stats.SectorErases++
		c.clock += c.cfg.Timing.Sector
	} else {
		c.stats.BlockErases++
		c.clock += c.cfg.Timing.Block
	}
	for s := off / c.geo.EraseSize; s < (off+n)/c.geo.EraseSize; s++ {
		c.wear[s]++
	}
	if failed != nil {
		c.tearErase(off, n, Cut{Done: n / 2})
		return failed
	}
	if cut.When == CutInside {
		c.tearErase(off, n, cut)
		return c.die()
	}
	c.blank(off, n)
	c.store(off, n)
	if cut.When == CutAfter {
		return c.die()
	}
	return c.diskErr
}

func (c *Chip) blank(off, n uint32) {
	m := c.mem[off : off+n]
	for i := range m {
		m[i] = 0xFF
	}
	for u := off / c.geo.ProgramSize; u < (off+n)/c.geo.ProgramSize; u++ {
		c.used[u/64] &^= 1 << (u % 64)
	}
	for s := off / c.geo.EraseSize; s < (off+n)/c.geo.EraseSize; s++ {
		c.shaky[s/64] &^= 1 << (s % 64)
	}
}

// before logs an operation and asks whether power fails at it.
func (c *Chip) before(op Op) Cut {
	if c.log != nil {
		c.log(op)
	}
	if c.pull.Swap(false) {
		return Cut{When: CutInside, Done: uint32(c.rng.IntN(int(op.Len)))}
	}
	if c.cut != nil {
		return c.cut(op)
	}
	return Cut{}
}

// fails asks whether the chip fails at an operation.
func (c *Chip) fails(op Op) error {
	if c.fail == nil {
		return nil
	}
	return c.fail(op)
}

// Sync writes a file-backed chip through to the disk.
func (c *Chip) Sync() error {
	if c.dead {
		return flash.ErrPower
	}
	if c.file == nil || c.diskErr != nil {
		return c.diskErr
	}
	if err := c.file.Sync(); err != nil {
		return fmt.Errorf("nor: %w", err)
	}
	return nil
}

// Clock is the time that the operations so far take on a real chip.
func (c *Chip) Clock() time.Duration { return c.clock }

// Stats is what the chip did so far.
func (c *Chip) Stats() Stats { return c.stats }

// Misuses is how many calls were refused: out of range, unaligned, or a program of
// a unit that was not erased.
func (c *Chip) Misuses() uint64 { return c.misuse }

// Wear is how often the sector that holds off was erased.
func (c *Chip) Wear(off uint32) uint32 { return c.wear[off/c.geo.EraseSize] }

// SetLog has f called with every operation before it happens; nil switches it off.
func (c *Chip) SetLog(f func(Op)) { c.log = f }

// Raw is the content of the cells, as a chip reader would see it; ciphertext where
// the chip encrypts. It is the chip's own memory: read only, until the next operation.
func (c *Chip) Raw() []byte { return c.mem }

// Load puts data into the cells as a flasher tool does: no rules, no time, no
// wear, and what a cut erase left marginal in the sectors that it touches is gone.
// On an encrypting chip data is encrypted first.
func (c *Chip) Load(off uint32, data []byte) error {
	if c.diskErr != nil {
		return c.diskErr
	}
	if off > c.geo.Size || uint32(len(data)) > c.geo.Size-off {
		return flash.ErrRange
	}
	if c.block != nil {
		if off%16 != 0 || len(data)%16 != 0 {
			return flash.ErrAlign
		}
		data = append([]byte(nil), data...)
		c.encrypt(data, off)
	}
	copy(c.mem[off:], data)
	c.markUsed(off, uint32(len(data)))
	for s := off / c.geo.EraseSize; s*c.geo.EraseSize < off+uint32(len(data)); s++ {
		c.shaky[s/64] &^= 1 << (s % 64)
	}
	c.store(off, uint32(len(data)))
	return c.diskErr
}

// markUsed derives from the content what counts as programmed.
func (c *Chip) markUsed(off, n uint32) {
	for u := off / c.geo.ProgramSize; u*c.geo.ProgramSize < off+n; u++ {
		c.used[u/64] &^= 1 << (u % 64)
		for _, b := range c.mem[u*c.geo.ProgramSize : (u+1)*c.geo.ProgramSize] {
			if b != 0xFF {
				c.used[u/64] |= 1 << (u % 64)
				break
			}
		}
	}
}

// Clone is a copy of the chip in memory, without its hooks.
func (c *Chip) Clone() *Chip {
	return &Chip{
		cfg: c.cfg, geo: c.geo, block: c.block, clock: c.clock, stats: c.stats, misuse: c.misuse, dead: c.dead,
		mem:   append([]byte(nil), c.mem...),
		used:  append([]uint64(nil), c.used...),
		wear:  append([]uint32(nil), c.wear...),
		shaky: append([]uint64(nil), c.shaky...),
		rng:   rand.New(rand.NewPCG(c.cfg.Seed, c.stats.Ops())),
	}
}
