package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
	wire "github.com/runnel-fota/runnel/core/wire/native"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// What a board was built with: the wire that it speaks, its key, what it trusts.
// Nothing that is received has a say in it.

// boardWire are the flags of it.
type boardWire struct {
	wire      string
	psk       keyFlags
	silent    bool
	keyFile   string
	keyNumber uint8
	product   string
	hardware  string
	health    string
	patches   string
	boardTrust

	cmd *cobra.Command
	key []byte
}

// boardTrust is whom a board on the native wire was built to believe.
type boardTrust struct {
	roots      []string
	m          int
	generation uint32
	trust      string
	macOnly    bool

	baked []byte // trust store; nil: mac-only
}

func (w *boardTrust) trustFlags(cmd *cobra.Command, native string) {
	f := cmd.Flags()
	f.StringArrayVar(&w.roots, "root", nil, native+"`file` with public root keys in PEM that it was built with; may be repeated")
	f.IntVar(&w.m, "m", 0, native+"`number` of those roots that must sign a key list (default: all)")
	f.Uint32Var(&w.generation, "generation", 1, native+"`number` of the roots' generation, as 'keys list' shows it")
	f.StringVar(&w.trust, "trust", "", native+"`file` with the trust store that it was built with (keys export --format bin), instead of --root")
	f.BoolVar(&w.macOnly, "mac-only", false, native+"believe releases by the server's MAC alone, without signatures: weaker")
}

func (w *boardTrust) checkTrust(cmd *cobra.Command) error {
	switch {
	case w.macOnly && (len(w.roots) > 0 || w.trust != ""):
		return usagef("--mac-only goes without roots")
	case len(w.roots) > 0 && w.trust != "":
		return usagef("--root and --trust exclude each other")
	case len(w.roots) == 0 && w.trust == "" && !w.macOnly:
		return usagef("no roots are named: the board could not tell who signed a release").
			withHint("give --root keys/root.pub, or --mac-only to believe the server alone")
	case w.trust != "" && (cmd.Flags().Changed("m") || cmd.Flags().Changed("generation")):
		return usagef("--trust has m and generation in it")
	case w.generation == 0:
		return usagef("--generation begins at 1")
	}
	return nil
}

// bake makes or reads the trust store.
func (w *boardTrust) bake(cmd *cobra.Command) (err error) {
	switch {
	case w.trust != "":
		if w.baked, err = readBounded(w.trust, manifest.MaxTrust); err != nil {
			return err
		}
		if _, err := bakedTrust(w.baked); err != nil {
			return hinted(fmt.Errorf("%s: %w", w.trust, err), "'runnel keys export DIR --format bin -o FILE' writes one")
		}
	case !w.macOnly:
		t, err := rootTrust(w.roots, w.m, cmd.Flags().Changed("m"))
		if err != nil {
			return err
		}
		if t, err = release.TrustRoots(w.generation, t.M, t.Roots...); err != nil {
			return err
		}
		w.baked = t.Baked()
	}
	return nil
}

func (w *boardWire) flags(cmd *cobra.Command) {
	w.cmd = cmd
	f := cmd.Flags()
	f.StringVar(&w.wire, "wire", "", "the `wire` that it speaks: native or v1 (default: native with --key-file, v1 with --psk)")
	f.StringVar(&w.keyFile, "key-file", "", "native: `file` with its secret, 64 hex digits; - is standard input")
	f.Uint8Var(&w.keyNumber, "key-number", 0, "native: `number` of that secret, where the device had others before")
	f.StringVar(&w.product, "product", "", "native: the `product` that it is")
	f.StringVar(&w.hardware, "hardware", "", "native: its hardware's `name`, or 0x and hex digits (default: the chip of the running image, e.g. esp32c3)")
	w.trustFlags(cmd, "native: ")
	f.StringVar(&w.health, "health", "", "native: what the board says of itself, like `free_ram=120000,battery=80,signal=-67` (bytes, percent, dBm)")
	f.StringVar(&w.patches, "patches", "none", "native: `memory` for patches and compressed streams: none, small (8 KiB in all) or large (16 KiB, chunks of 2048)")
	w.psk.flags(cmd)
	f.BoolVar(&w.silent, "silent", false, "v1: send no Device-ID and no MAC, as old boards do")
}

// nativeFlags have a meaning on the native wire only.
var nativeFlags = []string{"key-file", "key-number", "product", "hardware", "root", "m", "generation", "trust", "mac-only", "health", "patches"}

// choose settles which wire it is, and finds flags of the other one.
func (w *boardWire) choose() error {
	given := w.cmd.Flags().Changed
	if w.wire == "" {
		// A board of before is called as before.
		w.wire = yes(given("key-file"), "native", "v1")
	}
	var foreign []string
	switch w.wire {
	case "native":
		foreign = []string{"psk", "psk-file", "silent"}
	case "v1":
		foreign = nativeFlags
	default:
		return usagef("--wire %s: it is native or v1", w.wire)
	}
	for _, f := range foreign {
		if !given(f) {
			continue
		}
		if w.wire == "v1" && !given("wire") {
			return usagef("--%s is for the native wire, and there is no native key", f).withHint("give --key-file FILE, which 'runnel devices add --new-native-key' or 'runnel enrol' makes")
		}
		return usagef("--%s does not go with the %s wire: a board speaks one", f, w.wire)
	}
	if w.wire == "v1" {
		return nil
	}
	if !given("key-file") {
		return usagef("--key-file is missing").withHint("the device's native key: 'runnel devices add --new-native-key' or 'runnel enrol' makes the file")
	}
	return w.checkNative()
}

func (w *boardWire) checkNative() error {
	switch {
	case w.product == "":
		return usagef("--product is missing").withHint("a board takes releases of its own product only, e.g. --product acme/pump")
	case fleet.ValidateProduct(w.product) != nil:
		return usagef("%v", fleet.ValidateProduct(w.product))
	}
	if err := w.checkTrust(w.cmd); err != nil {
		return err
	}
	if _, err := w.patchMemory(); err != nil {
		return err
	}
	_, err := parseHealth(w.health)
	return err
}

// patchMemory is how much memory the board has set aside for derived streams.
func (w *boardWire) patchMemory() (board.PatchMemory, error) {
	switch w.patches {
	case "none", "":
		return board.PatchNone, nil
	case "small":
		return board.PatchSmall, nil
	case "large":
		return board.PatchLarge, nil
	}
	return 0, usagef("--patches %s: it is none, small or large", w.patches)
}

// parseHealth reads "free_ram=120000,battery=80,signal=-67"; "" says nothing.
func parseHealth(text string) (h wire.Health, err error) {
	if text == "" {
		return h, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case name == "free_ram" && n > 0 && n <= math.MaxUint32:
			h.FreeRAM = uint32(n)
			continue
		case name == "battery" && n > 0 && n <= 100:
			h.Battery = uint8(n)
			continue
		case name == "signal" && n < 0 && n >= -255:
			h.Signal = uint8(-n)
			continue
		}
		return h, usagef("--health %q says nothing of a board", part).withHint("write it like free_ram=120000,battery=80,signal=-67: bytes, 1 to 100 percent, dBm below 0")
	}
	return h, nil
}

// boardIdentity is what an App is given of it.
type boardIdentity struct {
	v1     v1.Identity
	native *board.Native
	kind   board.Kind
	about  string // one line for people, "" on v1
}

// read reads the key and the roots, before anything is opened that must be closed.
func (w *boardWire) read(id string) (err error) {
	if w.wire == "v1" {
		text, err := w.psk.read(w.cmd)
		if err == nil && text == "" {
			err = usagef("--psk or --psk-file is missing").withHint("the key that 'runnel devices add %s' was given", id)
		}
		if err == nil {
			w.key, err = hex.DecodeString(text)
		}
		return err
	}
	if len(id) > wire.MaxDevice || fleet.ValidateDeviceID(id) != nil {
		return usagef("--id %q is no device's id", id)
	}
	text, err := readKeyText(w.cmd, w.keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return hinted(err, "'runnel devices add %s --product %s --new-native-key -o %s' makes one, and 'runnel enrol' for a device with a token", id, w.product, w.keyFile)
	}
	if err != nil {
		return err
	}
	if w.key, err = hexKey(text); err != nil {
		return err
	}
	return w.bake(w.cmd)
}

// identity is the board's, with the chip of the image that would start.
func (w *boardWire) identity(id string, poll time.Duration, chip uint16) (boardIdentity, error) {
	if w.wire == "v1" {
		out := boardIdentity{v1: v1.Identity{ID: id, Signed: true, Key: w.key}}
		if w.silent {
			out.v1.ID, out.v1.Signed = "", false
		}
		return out, nil
	}
	hardware := w.hardware
	if hardware == "" {
		if esp32.ChipName(chip) == "" {
			return boardIdentity{}, usagef("--hardware is missing").withHint("the running image names no chip that is known")
		}
		hardware = chipHardware(chip)
	}
	list, err := parseHardware([]string{hardware})
	if err != nil {
		return boardIdentity{}, err
	}
	n := &board.Native{Device: id, Product: w.product, Hardware: string(list[0]), Key: w.keyNumber, Roots: w.baked,
		Secret: [wire.SecretSize]byte(w.key), MinPollMillis: uint32(poll.Milliseconds())}
	if n.Health, err = parseHealth(w.health); err != nil {
		return boardIdentity{}, err
	}
	if n.Patches, err = w.patchMemory(); err != nil {
		return boardIdentity{}, err
	}
	if w.cmd.Flags().Changed("poll") {
		n.MaxPollMillis = n.MinPollMillis
	}
	out := boardIdentity{native: n, kind: board.NativeWire}
	if w.macOnly {
		warn(w.cmd, "this board checks no signatures: whoever takes over the server, or has the board's key, chooses what it runs")
		out.about = "native, mac-only: no signatures are checked"
		return out, nil
	}
	t, err := bakedTrust(n.Roots)
	if err != nil {
		return out, err
	}
	out.about = fmt.Sprintf("native; roots: %d of %d, generation %d; apart, to check a signature: %s bytes",
		t.M, t.Roots, t.Generation, term.Number(board.VerifierBytes()))
	return out, nil
}

// bakedTrust is the header of a trust store that is whole.
func bakedTrust(store []byte) (manifest.Trust, error) {
	var t manifest.Trust
	if t.Load(memoryStore(store), make([]byte, manifest.TrustHeaderSize)) != 0 || int(t.Size()) != len(store) {
		return t, errors.New("this is no trust store")
	}
	return t, nil
}

// memoryStore is a trust store in RAM.
type memoryStore []byte

func (m memoryStore) ReadAt(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(m)) {
		return errors.New("the trust store ends early")
	}
	copy(p, m[off:])
	return nil
}

// runningChip is the chip id in the header of the image that would start, AnyChip
// where none would. Nothing is written: the bootloader decides on a copy.
func runningChip(chip *nor.Chip, noRollback bool) (uint16, error) {
	b := &board.Board{Chip: chip.Clone(), NoRollback: noRollback, ChipID: esp32.AnyChip}
	bt, err := b.Boot()
	if err != nil {
		return esp32.AnyChip, err
	}
	t, err := b.Table()
	if err != nil {
		return esp32.AnyChip, err
	}
	p := t.Find(esp32.TypeApp, esp32.SubtypeFactory)
	if bt.Running != boot.Factory {
		p = t.Find(esp32.TypeApp, esp32.SubtypeOTA0+uint8(bt.Running))
	}
	if p == nil {
		return esp32.AnyChip, nil
	}
	head := make([]byte, esp32.HeaderSize)
	if err := b.Chip.ReadAt(head, p.Offset); err != nil {
		return esp32.AnyChip, err
	}
	return uint16(head[12]) | uint16(head[13])<<8, nil // chip_id of esp_image_header_t
}

// chunkBufferError says which buffers the wire can use.
func (w *boardWire) chunkBufferError(n int) error {
	if m, err := w.patchMemory(); err == nil && n < m.Chunk() {
		return usagef("--chunk-buffer %d: derived streams for --patches %s have chunks of %d bytes", n, w.patches, m.Chunk())
	}
	if w.wire == "native" {
		sizes := []int{256, 512, 1024, 2048, 4096, 8192, 16384}
		if !slices.Contains(sizes, n) {
			return usagef("--chunk-buffer %d: on the native wire it is a power of two from 256 to 16384", n)
		}
		return nil
	}
	if n < device.MinChunkBuffer || n%256 != 0 || n > 16<<10 {
		return usagef("--chunk-buffer must be a multiple of 256 from %d to 16384", (device.MinChunkBuffer+255)/256*256)
	}
	return nil
}
