package light

import (
	"sync"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/sim/board"
)

// How a board's flash is cut up for keeping. Bytes.
const (
	sectorBytes = 4096
	blockBytes  = 64 << 10
	perBlock    = blockBytes / sectorBytes
	flashBytes  = 4 << 20
	blocks      = flashBytes / blockBytes
)

// block names what its sectors hold, by their numbers in a Library.
type block [perBlock]uint32

// Library keeps each content of a sector once, for all boards: ten thousand that hold
// the same image hold it in one place. Nothing is made up: what a board reads is what
// it programmed, and where boards differ the library has both. What it has it keeps;
// releases, and the places where downloads stopped, bound it. Safe for concurrent use.
type Library struct {
	mu       sync.RWMutex
	sectors  []string // up to the last byte that is not erased; 0: erased
	bySector map[string]uint32
	blocks   []block // 0: erased
	byBlock  map[block]uint32
	bytes    int // of sectors
	images   map[slotContent]verified
}

// slotContent is what a slot holds, by the numbers of its blocks.
type slotContent [slotBytes / blockBytes]uint32

// verified is what the bootloader's check of a slot came to.
type verified struct {
	err    error
	behave board.Behaviour
}

// NewLibrary is empty.
func NewLibrary() *Library {
	return &Library{sectors: []string{""}, bySector: map[string]uint32{"": 0}, blocks: []block{{}}, byBlock: map[block]uint32{{}: 0},
		images: map[slotContent]verified{}}
}

// Bytes is how many bytes of sectors it keeps.
func (l *Library) Bytes() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.bytes
}

// sector is the number of a sector's content.
func (l *Library) sector(p []byte) uint32 {
	p = trim(p)
	l.mu.RLock()
	n, ok := l.bySector[string(p)]
	l.mu.RUnlock()
	if ok {
		return n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.bySector[string(p)]; ok {
		return n
	}
	n = uint32(len(l.sectors))
	kept := string(p)
	l.sectors = append(l.sectors, kept)
	l.bySector[kept] = n
	l.bytes += len(kept)
	return n
}

// content is what a number stands for, without its erased end.
func (l *Library) content(n uint32) string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.sectors[n]
}

// pack is the number of a block.
func (l *Library) pack(b *block) uint32 {
	l.mu.RLock()
	n, ok := l.byBlock[*b]
	l.mu.RUnlock()
	if ok {
		return n
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.byBlock[*b]; ok {
		return n
	}
	n = uint32(len(l.blocks))
	l.blocks = append(l.blocks, *b)
	l.byBlock[*b] = n
	return n
}

// unpack puts the sectors of a flash's blocks where they belong.
func (l *Library) unpack(from *[blocks]uint32, to *[flashBytes / sectorBytes]uint32) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i, n := range from {
		copy(to[i*perBlock:], l.blocks[n][:])
	}
}

// verify is the bootloader's image check of a slot. Boards that hold the same share
// one: the bytes are the same.
func (l *Library) verify(c slotContent, chip uint16) verified {
	l.mu.RLock()
	v, ok := l.images[c]
	l.mu.RUnlock()
	if ok {
		return v
	}
	var check esp32.ImageCheck
	var buf [sectorBytes]byte
	check.Begin(chip, slotBytes)
	v.behave = board.BehaveOK
scan:
	for i, n := range c {
		l.mu.RLock()
		b := l.blocks[n]
		l.mu.RUnlock()
		for j, s := range b {
			if check.Done() || v.err != nil {
				break scan
			}
			fill(buf[:], l.content(s))
			if i == 0 && j == 0 {
				v.behave = board.BehaviourOf(buf[:])
			}
			v.err = check.Write(buf[:])
		}
	}
	if v.err == nil {
		v.err = check.End()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.images[c] = v
	return v
}

// trim leaves the erased end of a sector away.
func trim(p []byte) []byte {
	n := len(p)
	for n > 0 && p[n-1] == erased {
		n--
	}
	return p[:n]
}

// fill makes p a sector's content with its erased end.
func fill(p []byte, content string) {
	for i := copy(p, content); i < len(p); i++ {
		p[i] = erased
	}
}
