package release

import "testing"

func TestIsFile(t *testing.T) {
	file, _ := testFile(t)
	bare := members(t, nameManifest, []byte{1})
	for name, c := range map[string]struct {
		head []byte
		want bool
	}{
		"with a key list":   {file[:FileHead], true},
		"without":           {bare[:FileHead], true},
		"whole":             {file, true},
		"cut":               {file[:8], false},
		"empty":             {nil, false},
		"an image":          {[]byte{0xE9, 3, 2, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false},
		"another archive":   {members(t, "image.bin", []byte{1})[:FileHead], false},
		"a longer name":     {[]byte("manifest.cosexxx"), false},
		"words about it":    {[]byte("manifest.cose is"), false},
		"keylist, no image": {[]byte("keylist.cose\x00\x00\x00\x00"), true},
	} {
		if IsFile(c.head) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}
