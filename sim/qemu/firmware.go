package qemu

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/runnel-fota/runnel/internal/tinygo"
)

// Firmware is a program that was linked for a chip.
type Firmware struct {
	ELF     string // file
	Base    uint32 // address of Image
	Image   []byte // what goes into flash
	Symbols map[string]uint32
	Sizes   string // TinyGo's table
}

// Builder builds the programs of the firmware module, each once.
type Builder struct {
	tc   *tinygo.Toolchain
	root string // of the repository
	out  string // folder for what is built
}

// NewBuilder sets the tool chain up. What is built stays in the user's cache folder,
// under a digest of the sources.
func NewBuilder(ctx context.Context, root string) (*Builder, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	tc, err := tinygo.Setup(ctx, root)
	if err != nil {
		return nil, err
	}
	stamp, err := sources(root, tc.Stamp())
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	b := &Builder{tc: tc, root: root, out: filepath.Join(cache, "runnel", "firmware-"+stamp)}
	return b, os.MkdirAll(b.out, 0o755)
}

// sources is a digest of everything that goes into a program.
func sources(root, toolchain string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, toolchain)
	for _, dir := range []string{"core", "firmware"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			fmt.Fprintf(h, "%s %d\n", path, len(text)) // TinyGo puts paths into what it builds
			h.Write(text)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// Build links firmware/BOARD/PROGRAM with the linker script LINK.ld of the board.
func (b *Builder) Build(ctx context.Context, board, program, link string, tags ...string) (*Firmware, error) {
	module := filepath.Join(b.root, "firmware")
	folder := filepath.Join(module, board)
	from, err := b.tc.FromRoot(folder)
	if err != nil {
		return nil, err
	}
	name := strings.Join(append([]string{board, strings.ReplaceAll(program, "/", "-"), link}, tags...), "-")
	f := &Firmware{ELF: filepath.Join(b.out, name+".elf")}
	table := filepath.Join(b.out, name+".sizes")
	if sizes, err := os.ReadFile(table); err == nil {
		f.Sizes = string(sizes)
		return f, f.read()
	}
	// Another test may build the same: each into its own file, and the last one stays.
	made := fmt.Sprintf("%s.%d", f.ELF, os.Getpid())
	f.Sizes, err = b.tc.Build(ctx, tinygo.Build{
		Module: module, Package: "./" + board + "/" + program, Target: filepath.Join(folder, "target.json"),
		Words: map[string]string{"BOARD": folder, "BOARD_FROM_ROOT": from, "LINK": link, "PROGRAM": program},
		Tags:  tags, Output: made, Size: "full",
	})
	if err != nil {
		return nil, err
	}
	if err := os.Rename(made, f.ELF); err != nil {
		return nil, err
	}
	if err := os.WriteFile(made, []byte(f.Sizes), 0o644); err != nil {
		return nil, err
	}
	if err := os.Rename(made, table); err != nil { // last: what has one is whole
		return nil, err
	}
	return f, f.read()
}

// maxImage bounds what is read of an ELF file, bytes.
const maxImage = 1 << 20

// loadAddress is where a section lies in flash; data that is copied to RAM at the start
// has another address there.
func loadAddress(e *elf.File, sec *elf.Section) (uint32, bool) {
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && sec.Offset >= p.Off && sec.Offset+sec.Size <= p.Off+p.Filesz {
			return uint32(p.Paddr + sec.Offset - p.Off), true
		}
	}
	return 0, false
}

// read takes the loadable part and the symbols out of the ELF file.
func (f *Firmware) read() error {
	e, err := elf.Open(f.ELF)
	if err != nil {
		return err
	}
	defer e.Close()
	for _, sec := range e.Sections {
		if sec.Type != elf.SHT_PROGBITS || sec.Flags&elf.SHF_ALLOC == 0 || sec.Size == 0 {
			continue
		}
		at, ok := loadAddress(e, sec)
		if !ok {
			return fmt.Errorf("%s: section %s is in no segment", f.ELF, sec.Name)
		}
		if f.Image == nil {
			f.Base = at
		}
		off := int(at - f.Base)
		if at < f.Base || off < len(f.Image) || off > maxImage {
			return fmt.Errorf("%s: section %s lies at 0x%x", f.ELF, sec.Name, at)
		}
		for len(f.Image) < off {
			f.Image = append(f.Image, 0xFF)
		}
		part, err := sec.Data()
		if err != nil {
			return err
		}
		f.Image = append(f.Image, part...)
	}
	if f.Image == nil {
		return errors.New(f.ELF + ": nothing to load")
	}
	symbols, err := e.Symbols()
	if err != nil {
		return err
	}
	f.Symbols = make(map[string]uint32, len(symbols))
	for _, s := range symbols {
		f.Symbols[s.Name] = uint32(s.Value)
	}
	return nil
}
