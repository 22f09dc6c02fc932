package esp32

// MaxCSVSize is a buffer in bytes that EncodeCSV never finds too small.
const MaxCSVSize = 9 << 10

const csvHead = "# ESP-IDF Partition Table\n# Name, Type, SubType, Offset, Size, Flags\n"

// EncodeCSV writes the table as ESP-IDF's generator prints one: a line a partition,
// known types and subtypes by name and others in decimal, offsets in hexadecimal,
// sizes in K or M. It says how many bytes of out that takes. What it writes,
// ParseCSV reads back into the same table, but for HasMD5, of which a CSV says
// nothing. So it refuses what ParseCSV would; n is then the partition at fault.
func (t *Table) EncodeCSV(out []byte) (n int, err error) {
	if t.N < 0 || t.N > MaxPartitions-1 {
		return 0, ErrCSVFull
	}
	w := csvWriter{out: out}
	w.text(csvHead)
	for i := 0; i < t.N; i++ {
		p := &t.P[i]
		if err := t.checkEntry(i); err != nil {
			return i, err
		}
		w.bytes(p.Name())
		w.text(",")
		if s, ok := wordOf(p.Type, typeWords[:]); ok {
			w.text(s)
		} else {
			w.number(uint32(p.Type), 10)
		}
		w.text(",")
		w.subtype(p.Type, p.Subtype)
		w.text(",0x")
		w.number(p.Offset, 16)
		w.text(",")
		switch {
		case p.Size%(1<<20) == 0:
			w.number(p.Size>>20, 10)
			w.text("M,")
		default: // sizes are multiples of 4 KiB
			w.number(p.Size>>10, 10)
			w.text("K,")
		}
		if p.Flags&FlagEncrypted != 0 {
			w.text("encrypted")
		}
		if p.Flags == FlagEncrypted|FlagReadOnly {
			w.text(":")
		}
		if p.Flags&FlagReadOnly != 0 {
			w.text("readonly")
		}
		w.text("\n")
		if w.full {
			return i, ErrCSVRoom
		}
	}
	if w.full {
		return 0, ErrCSVRoom
	}
	return w.n, nil
}

// checkEntry: the rules of ParseCSV, and what a CSV can't say.
func (t *Table) checkEntry(i int) error {
	p := &t.P[i]
	name := p.Name()
	if err := checkName(name); err != nil || len(trim(name)) != len(name) {
		return ErrCSVName
	}
	for _, b := range p.Label[len(name):] {
		if b != 0 {
			return ErrCSVName
		}
	}
	switch {
	case p.Type == 0xFF:
		return ErrCSVType
	case p.Subtype == 0xFF:
		return ErrCSVSubtype
	case p.Flags&^(FlagEncrypted|FlagReadOnly) != 0:
		return ErrCSVFlags
	}
	if err := p.checkAlign(); err != nil {
		return err
	}
	return t.checkAgainst(i, p, 0xFFFFFFFF)
}

// checkName: what a CSV can carry as a name.
func checkName(name []byte) error {
	if len(name) == 0 || len(name) > 16 {
		return ErrCSVName
	}
	for _, c := range name {
		if c < 0x20 || c == 0x7F || c == ',' || c == '#' {
			return ErrCSVName
		}
	}
	return nil
}

func wordOf(v uint8, words []word) (string, bool) {
	for i := range words {
		if words[i].value == v {
			return words[i].text, true
		}
	}
	return "", false
}

type csvWriter struct {
	out  []byte
	n    int
	full bool
}

func (w *csvWriter) text(s string) {
	if w.full = w.full || len(s) > len(w.out)-w.n; !w.full {
		w.n += copy(w.out[w.n:], s)
	}
}

func (w *csvWriter) bytes(p []byte) {
	if w.full = w.full || len(p) > len(w.out)-w.n; !w.full {
		w.n += copy(w.out[w.n:], p)
	}
}

func (w *csvWriter) number(v, base uint32) {
	var digits [10]byte
	i := len(digits)
	for {
		i--
		digits[i] = "0123456789abcdef"[v%base]
		if v /= base; v == 0 {
			break
		}
	}
	w.bytes(digits[i:])
}

func (w *csvWriter) subtype(typ, v uint8) {
	if typ == TypeApp && v&^0x0F == SubtypeOTA0 {
		w.text("ota_")
		w.number(uint32(v&0x0F), 10)
		return
	}
	if s, ok := wordOf(v, subtypeWords(typ)); ok {
		w.text(s)
		return
	}
	w.number(uint32(v), 10)
}
