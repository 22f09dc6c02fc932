package delta

import (
	"bytes"
	"compress/gzip"
	"io"
)

// changedAssets finds files inside the new image that are compressed and not in the old
// image: no patch can tell what changed in them, since a small change inside changes all
// that follows. Only gzip's can be told for sure: what unpacks, with its checksum.
func changedAssets(old, new []byte) []Asset {
	assets := []Asset{}
	for at := 0; at < len(new); {
		i := bytes.Index(new[at:], []byte{0x1F, 0x8B, 8})
		if i < 0 {
			break
		}
		at += i
		r := bytes.NewReader(new[at:])
		z, err := gzip.NewReader(r)
		if err == nil {
			z.Multistream(false)
			_, err = io.Copy(io.Discard, io.LimitReader(z, maxUnpacked))
		}
		if err != nil {
			at++
			continue
		}
		n := len(new) - at - r.Len()
		if !bytes.Contains(old, new[at:at+n]) {
			assets = append(assets, Asset{"gzip", at, n})
		}
		at += n
	}
	return assets
}

// maxUnpacked bounds what one file may unpack to, bytes.
const maxUnpacked = 64 << 20
