package qemu

import (
	"bufio"
	"fmt"
	"strings"
)

// Share is what a package takes of a program, in bytes.
type Share struct {
	Package string `json:"package"`
	Text    int    `json:"text"` // code and constants
	Data    int    `json:"data"`
	BSS     int    `json:"bss"`
}

// StackShare is the name under which the linker's reserve for the stack stands.
const StackShare = "C stack"

// ours is left out of names.
const ours = "github.com/runnel-fota/runnel/"

// Shares reads TinyGo's table.
func (f *Firmware) Shares() ([]Share, error) {
	var all []Share
	lines := bufio.NewScanner(strings.NewReader(f.Sizes))
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), "|")
		if !ok {
			continue
		}
		var code, constants int
		var s Share
		if _, err := fmt.Sscan(left, &code, &constants, &s.Data, &s.BSS); err != nil {
			continue // a head line
		}
		_, name, ok := strings.Cut(right, "|")
		if name = strings.TrimSpace(name); !ok || name == "" {
			continue // the sum
		}
		s.Package, s.Text = strings.TrimPrefix(name, ours), code+constants
		if s.Package == "total" {
			continue
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no sizes in %q", f.ELF, f.Sizes)
	}
	return all, lines.Err()
}

// paint is what an image's start fills its stack with (firmware/microbit/app/start.s).
const paint = 0xA5

// HighWater is how deep a stack went that grows down to its first byte: what is not
// painted any more. Bytes.
func HighWater(stack []byte) int {
	for i, b := range stack {
		if b != paint {
			return len(stack) - i
		}
	}
	return 0
}

// InstructionsPerMicro is how many instructions the emulated chip does in a microsecond
// of its own clock.
const InstructionsPerMicro = 1000 >> shift
