package v1

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// prepared is what of a release's chunks does not depend on a key: the bytes,
// for the MAC, and their base64, chunk by chunk. One copy serves all devices.
type prepared struct {
	image     []byte
	text      []byte // every chunk's base64, each padded, in a row
	chunkSize int
	stride    int // characters of a full chunk
}

func prepareImage(image []byte, chunkSize int) *prepared {
	p := &prepared{image: image, chunkSize: chunkSize, stride: base64.StdEncoding.EncodedLen(chunkSize)}
	full, rest := len(image)/chunkSize, len(image)%chunkSize
	p.text = make([]byte, 0, full*p.stride+base64.StdEncoding.EncodedLen(rest))
	for at := 0; at < len(image); at += chunkSize {
		p.text = base64.StdEncoding.AppendEncode(p.text, image[at:min(at+chunkSize, len(image))])
	}
	return p
}

// chunk is chunk n's bytes and text; nil past the end.
func (p *prepared) chunk(n uint64) (data, text []byte) {
	if n >= uint64(len(p.image)+p.chunkSize-1)/uint64(p.chunkSize) {
		return nil, nil
	}
	at, t := int(n)*p.chunkSize, int(n)*p.stride
	return p.image[at:min(at+p.chunkSize, len(p.image))], p.text[t:min(t+p.stride, len(p.text))]
}

func (p *prepared) bytes() int64 { return int64(len(p.image) + len(p.text)) }

// imageCache keeps prepared releases, least recently used out first. It holds at
// most limit bytes, or one release if that alone is larger.
type imageCache struct {
	blobs Blobs
	limit int64
	load  singleflight.Group

	mu    sync.Mutex
	byKey map[imageKey]*list.Element
	order *list.List // front: used last
	used  int64
}

type imageKey struct {
	digest    fleet.Digest
	chunkSize int
}

type cached struct {
	key imageKey
	p   *prepared
}

func newImageCache(b Blobs, limit int64) *imageCache {
	return &imageCache{blobs: b, limit: limit, byKey: make(map[imageKey]*list.Element), order: list.New()}
}

func (c *imageCache) get(ctx context.Context, r *fleet.Release) (*prepared, error) {
	key := imageKey{r.Image.Digest, r.ChunkSize}
	c.mu.Lock()
	if e := c.byKey[key]; e != nil {
		c.order.MoveToFront(e)
		p := e.Value.(cached).p
		c.mu.Unlock()
		return p, nil
	}
	c.mu.Unlock()
	// One reader for all who wait; the first to give up must not fail the others.
	v, err, _ := c.load.Do(fmt.Sprintf("%s/%d", key.digest, key.chunkSize), func() (any, error) {
		p, err := c.read(context.WithoutCancel(ctx), r)
		if err == nil {
			c.put(key, p)
		}
		return p, err
	})
	if err != nil {
		return nil, err
	}
	return v.(*prepared), nil
}

func (c *imageCache) read(ctx context.Context, r *fleet.Release) (*prepared, error) {
	f, err := c.blobs.OpenBlob(ctx, r.Image.Digest)
	if err != nil {
		return nil, fmt.Errorf("image of release %d: %w", r.ID, hideCode(err))
	}
	defer f.Close()
	image := make([]byte, r.Image.Size)
	if _, err := io.ReadFull(f, image); err != nil {
		return nil, fmt.Errorf("image of release %d: %w", r.ID, hideCode(err))
	}
	if sha256.Sum256(image) != r.Image.Digest {
		return nil, fmt.Errorf("image of release %d: the stored bytes are damaged", r.ID)
	}
	return prepareImage(image, r.ChunkSize), nil
}

// hideCode keeps a store's code from a device: a blob that is missing is the
// server's trouble, not a chunk that does not exist. That it comes later is told.
func hideCode(err error) error {
	if code := fleet.CodeOf(err); code == fleet.CodeBusy || code == fleet.CodeNoSpace {
		return &fleet.Error{Code: fleet.CodeBusy, Message: "the image is not here yet: try again", Err: err}
	}
	return fmt.Errorf("%v", err)
}

func (c *imageCache) put(key imageKey, p *prepared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[key] != nil {
		return
	}
	c.byKey[key] = c.order.PushFront(cached{key, p})
	c.used += p.bytes()
	for c.used > c.limit && c.order.Len() > 1 {
		e := c.order.Back()
		old := c.order.Remove(e).(cached)
		delete(c.byKey, old.key)
		c.used -= old.p.bytes()
	}
}
