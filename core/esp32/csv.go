package esp32

// CSVError is what is wrong with a line of a partition CSV.
type CSVError uint8

const (
	ErrCSVFields  CSVError = iota + 1 // not name,type,subtype,offset,size[,flags]
	ErrCSVName                        // longer than 16 bytes, or empty, or not unique
	ErrCSVType                        // unknown type
	ErrCSVSubtype                     // unknown subtype for the type
	ErrCSVNumber                      // not a number, K or M
	ErrCSVAlign                       // app: offset in 64 KiB, others in 4 KiB; size in 4 KiB
	ErrCSVOverlap                     // overlaps the partition before it, or the table
	ErrCSVRange                       // outside the flash chip
	ErrCSVFlags                       // neither encrypted nor readonly
	ErrCSVOTAData                     // otadata twice, or not 0x2000 bytes, or readonly
	ErrCSVNVS                         // read-write nvs smaller than 0x3000
	ErrCSVFull                        // too many partitions
	ErrCSVRoom                        // EncodeCSV's buffer is too small
)

func (e CSVError) Error() string {
	switch e {
	case ErrCSVFields:
		return "a line is name, type, subtype, offset, size, flags"
	case ErrCSVName:
		return "name is empty, longer than 16 bytes, used twice, or has a character that a CSV can't carry"
	case ErrCSVType:
		return "unknown type; app, data or a number is expected"
	case ErrCSVSubtype:
		return "unknown subtype for this type"
	case ErrCSVNumber:
		return "not a number; 4096, 0x1000, 4K or 1M is expected"
	case ErrCSVAlign:
		return "offset or size is not aligned: apps start at multiples of 0x10000, all else at 0x1000"
	case ErrCSVOverlap:
		return "overlaps another partition or the partition table"
	case ErrCSVRange:
		return "does not fit the flash chip"
	case ErrCSVFlags:
		return "unknown flag; encrypted and readonly are known"
	case ErrCSVOTAData:
		return "otadata must be there once, of 0x2000 bytes, and writable"
	case ErrCSVNVS:
		return "nvs that is written needs 0x3000 bytes"
	case ErrCSVFull:
		return "too many partitions"
	case ErrCSVRoom:
		return "buffer too small for the CSV"
	}
	return "unknown CSV error"
}

// ParseCSV reads a partition CSV by the rules of ESP-IDF's generator and places
// what has no offset. On an error, line is the one at fault, from 1. The table
// gets a checksum entry, as the generator's has. Environment variables are not
// expanded.
func (t *Table) ParseCSV(p []byte, flashSize uint32) (line int, err error) {
	*t = Table{HasMD5: true}
	next := uint32(TableOffset + 0x1000)
	for len(p) > 0 {
		line++
		text := p
		p = nil
		for i, c := range text {
			if c == '\n' {
				text, p = text[:i], text[i+1:]
				break
			}
		}
		for i, c := range text {
			if c == '#' {
				text = text[:i]
				break
			}
		}
		if text = trim(text); len(text) == 0 {
			continue
		}
		if t.N == MaxPartitions-1 {
			return line, ErrCSVFull
		}
		q := &t.P[t.N]
		if err := q.parseLine(text, next); err != nil {
			return line, err
		}
		if err := t.checkAgainst(t.N, q, flashSize); err != nil {
			return line, err
		}
		t.N++
		next = q.Offset + q.Size
	}
	return line, nil
}

// parseLine reads one line; a blank offset is placed at next or the first place
// behind it that is aligned.
func (q *Partition) parseLine(text []byte, next uint32) error {
	var f [6][]byte
	n := 0
	for start, i := 0, 0; i <= len(text); i++ {
		if i < len(text) && text[i] != ',' {
			continue
		}
		if n == len(f) {
			if len(trim(text[start:i])) != 0 {
				return ErrCSVFields
			}
			start = i + 1
			continue
		}
		f[n] = trim(text[start:i])
		n++
		start = i + 1
	}
	if n < 5 {
		return ErrCSVFields
	}
	*q = Partition{}
	if err := checkName(f[0]); err != nil {
		return err
	}
	copy(q.Label[:], f[0])
	var ok bool
	if q.Type, ok = keyword(f[1], typeWords[:]); !ok {
		v, err := number(f[1])
		if err != nil || v > 0xFE {
			return ErrCSVType
		}
		q.Type = uint8(v)
	}
	if q.Subtype, ok = subtypeOf(q.Type, f[2]); !ok {
		return ErrCSVSubtype
	}
	align := q.align()
	q.Offset = (next + align - 1) / align * align
	if len(f[3]) > 0 {
		v, err := number(f[3])
		if err != nil {
			return err
		}
		q.Offset = v
	}
	size := f[4]
	until := len(size) > 0 && size[0] == '-'
	if until {
		size = size[1:]
	}
	v, err := number(size)
	if err != nil {
		return err
	}
	if until { // "until that address"
		if v <= q.Offset {
			return ErrCSVRange
		}
		v -= q.Offset
	}
	q.Size = v
	if err := q.checkAlign(); err != nil {
		return err
	}
	return q.parseFlags(f[5])
}

// align is what a partition's offset has to be a multiple of, in bytes.
func (q *Partition) align() uint32 {
	if q.Type == TypeApp {
		return 0x10000
	}
	return 0x1000
}

func (q *Partition) checkAlign() error {
	if q.Offset%q.align() != 0 || q.Size%0x1000 != 0 || q.Size == 0 {
		return ErrCSVAlign
	}
	return nil
}

func (q *Partition) parseFlags(text []byte) error {
	for start, i := 0, 0; i <= len(text); i++ {
		if i < len(text) && text[i] != ':' {
			continue
		}
		switch w := trim(text[start:i]); {
		case is(w, "encrypted"):
			q.Flags |= FlagEncrypted
		case is(w, "readonly"):
			q.Flags |= FlagReadOnly
		case len(w) > 0:
			return ErrCSVFlags
		}
		start = i + 1
	}
	return nil
}

// checkAgainst holds a partition against the chip and the first n of the table.
func (t *Table) checkAgainst(n int, q *Partition, flashSize uint32) error {
	if q.Offset < TableOffset+0x1000 {
		return ErrCSVOverlap
	}
	if q.Offset > flashSize || q.Size > flashSize-q.Offset {
		return ErrCSVRange
	}
	otadata := q.Type == TypeData && q.Subtype == SubtypeOTA
	if otadata && (q.Size != OTADataSize || q.Flags&FlagReadOnly != 0) {
		return ErrCSVOTAData
	}
	if q.Type == TypeData && q.Subtype == SubtypeNVS && q.Size < 0x3000 && q.Flags&FlagReadOnly == 0 {
		return ErrCSVNVS
	}
	for i := 0; i < n; i++ {
		o := &t.P[i]
		switch {
		case o.Label == q.Label:
			return ErrCSVName
		case q.Offset < o.Offset+o.Size && o.Offset < q.Offset+q.Size:
			return ErrCSVOverlap
		case otadata && o.Type == TypeData && o.Subtype == SubtypeOTA:
			return ErrCSVOTAData
		}
	}
	return nil
}

type word struct {
	text  string
	value uint8
}

var (
	typeWords = [...]word{{"app", 0}, {"data", 1}, {"bootloader", 2}, {"partition_table", 3}}
	dataWords = [...]word{{"ota", 0}, {"phy", 1}, {"nvs", 2}, {"coredump", 3}, {"nvs_keys", 4}, {"efuse", 5}, {"undefined", 6},
		{"esphttpd", 0x80}, {"fat", 0x81}, {"spiffs", 0x82}, {"littlefs", 0x83}, {"tee_ota", 0x90}}
	appWords = [...]word{{"factory", 0}, {"test", 0x20}, {"tee_0", 0x30}, {"tee_1", 0x31}}
	tabWords = [...]word{{"primary", 0}, {"ota", 1}, {"recovery", 2}}
)

func keyword(text []byte, words []word) (uint8, bool) {
	for i := range words {
		if is(text, words[i].text) {
			return words[i].value, true
		}
	}
	return 0, false
}

// subtypeWords are the names of a type's subtypes, without ota_0 to ota_15.
func subtypeWords(typ uint8) []word {
	switch typ {
	case TypeApp:
		return appWords[:]
	case TypeData:
		return dataWords[:]
	case 2: // bootloader
		return tabWords[:]
	case 3: // partition_table: there is no recovery one
		return tabWords[:2]
	}
	return nil
}

func subtypeOf(typ uint8, text []byte) (uint8, bool) {
	if typ == TypeData && len(text) == 0 {
		return 6, true
	}
	if typ == TypeApp && len(text) > 4 && is(text[:4], "ota_") {
		n, err := number(text[4:])
		return SubtypeOTA0 + uint8(n), err == nil && n < 16
	}
	if v, ok := keyword(text, subtypeWords(typ)); ok {
		return v, true
	}
	n, err := number(text)
	return uint8(n), err == nil && n <= 0xFE
}

// number reads decimal or 0x hexadecimal with an optional K or M.
func number(p []byte) (uint32, error) {
	mul := uint64(1)
	if n := len(p); n > 0 {
		switch p[n-1] {
		case 'K', 'k':
			mul, p = 1<<10, p[:n-1]
		case 'M', 'm':
			mul, p = 1<<20, p[:n-1]
		}
	}
	base := uint64(10)
	if len(p) > 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X') {
		base, p = 16, p[2:]
	}
	if len(p) == 0 || len(p) > 10 {
		return 0, ErrCSVNumber
	}
	v := uint64(0)
	for _, c := range p {
		d := uint64(99)
		switch {
		case c >= '0' && c <= '9':
			d = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			d = uint64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = uint64(c-'A') + 10
		}
		if d >= base {
			return 0, ErrCSVNumber
		}
		v = v*base + d
	}
	if v *= mul; v > 0xFFFFFFFF {
		return 0, ErrCSVNumber
	}
	return uint32(v), nil
}

func trim(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t' || p[0] == '\r') {
		p = p[1:]
	}
	for n := len(p); n > 0 && (p[n-1] == ' ' || p[n-1] == '\t' || p[n-1] == '\r'); n = len(p) {
		p = p[:n-1]
	}
	return p
}

func is(p []byte, s string) bool {
	if len(p) != len(s) {
		return false
	}
	for i := range p {
		if p[i] != s[i] {
			return false
		}
	}
	return true
}
