package fleet

import (
	"bytes"
	"cmp"
	"slices"
)

// Coder is a profile of the patch coder, and what a stream of it asks of a device.
type Coder struct {
	Profile    uint8
	Chunk, RAM uint32 // bytes
}

// Short is a derived stream that devices could use and that is not there.
type Short struct {
	DerivationName
	Devices int // it is of use to
}

// shortName is a release and a profile that devices want it in.
type shortName struct {
	release int64
	profile uint8
}

// Shorts are the derived streams that would be of use to a fleet, by what its devices said
// last: patches from images that they run and that are held, from most of them at most for
// each release and profile, and the compressed image for the rest. What may be offered next is the
// newest release of each channel that is published or a draft, and those of rollouts in
// force. What serves the most devices comes first. coders are those to choose from, the
// better ones first.
func (o *NativeOffers) Shorts(asks []AskCount, held func(Digest) bool, coders []Coder, most int) (list []Short) {
	bases := map[shortName]map[Digest]int{} // devices by image; the zero one: none that is held
	for _, c := range asks {
		a := ParseAsk(c.Ask)
		if a == nil {
			continue
		}
		coder := slices.IndexFunc(coders, func(k Coder) bool {
			return a.Derived.Takes(k.Profile) && k.RAM <= a.Derived.RAM && k.Chunk <= a.Chunk
		})
		if coder < 0 {
			continue
		}
		for _, r := range o.next(ProductOf(Device{Product: c.Product}, o.products), *a) {
			var base Digest
			if len(a.Image) == len(base) && held(Digest(a.Image)) {
				base = Digest(a.Image)
			}
			n := shortName{r.ID, coders[coder].Profile}
			if bases[n] == nil {
				bases[n] = map[Digest]int{}
			}
			bases[n][base] += c.Devices
		}
	}
	for n, images := range bases {
		list = append(list, shortsOf(n, images, most)...)
	}
	list = slices.DeleteFunc(list, func(s Short) bool { return o.hasDerived(s.DerivationName) })
	slices.SortFunc(list, func(a, b Short) int {
		return cmp.Or(cmp.Compare(b.Devices, a.Devices), cmp.Compare(b.Release, a.Release), cmp.Compare(a.Profile, b.Profile), bytes.Compare(a.Base[:], b.Base[:]))
	})
	return list
}

// shortsOf takes the images that most devices run; the rest are served by none of them.
func shortsOf(n shortName, images map[Digest]int, most int) (list []Short) {
	rest := images[Digest{}]
	delete(images, Digest{})
	for d, devices := range images {
		list = append(list, Short{DerivationName{n.release, d, n.profile}, devices})
	}
	slices.SortFunc(list, func(a, b Short) int {
		return cmp.Or(cmp.Compare(b.Devices, a.Devices), bytes.Compare(a.Base[:], b.Base[:]))
	})
	for len(list) > most {
		rest += list[len(list)-1].Devices
		list = list[:len(list)-1]
	}
	if rest > 0 {
		list = append(list, Short{DerivationName{Release: n.release, Profile: n.profile}, rest})
	}
	return list
}

// next are the releases that a device may be offered next.
func (o *NativeOffers) next(product string, a NativeAsk) (list []*nativeRelease) {
	target, ok := a.Target()
	if !ok {
		return nil
	}
	rollouts := o.plan.Releases(product)
	newest := map[string]*nativeRelease{} // by channel
	for _, r := range o.releases[product] {
		switch {
		case r.State == ReleaseWithdrawn, !r.m.For(a.Hardware), !r.fits(target), !newer(r.Epoch, r.Sequence, a.Epoch, a.Sequence), string(a.Image) == string(r.Image.Digest[:]):
			continue
		case slices.ContainsFunc(rollouts, func(id int64) bool { return o.isBuild(id, r) }):
			list = append(list, r)
		}
		if b := newest[r.Channel]; b == nil || newer(r.Epoch, r.Sequence, b.Epoch, b.Sequence) {
			newest[r.Channel] = r
		}
	}
	for _, r := range newest {
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

// hasDerived says whether there is a stream of that name that devices may get.
func (o *NativeOffers) hasDerived(n DerivationName) bool {
	for _, list := range o.releases {
		for _, r := range list {
			if r.ID != n.Release {
				continue
			}
			return slices.ContainsFunc(r.derived, func(m derivedStream) bool {
				base := n.Base[:]
				if n.Base == (Digest{}) {
					base = nil
				}
				return m.sheet.Profile == n.Profile && string(m.sheet.BaseDigest) == string(base)
			})
		}
	}
	return false
}
