package native

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// keyList serves the newest list, or the one that began a generation here: a device
// goes from one generation to the next. Both are public.
func (s *Server) keyList(w http.ResponseWriter, r *http.Request) {
	which := r.PathValue("generation")
	var l fleet.KeyList
	var err error
	// The list of a generation never changes; which one is the newest may at any time.
	cache := objectCache
	if which == "latest" {
		cache = "no-cache, no-transform"
		l, err = s.c.KeyLists.NewestKeyList(r.Context())
	} else {
		n, bad := strconv.ParseUint(which, 10, 32)
		if bad != nil || strconv.FormatUint(n, 10) != which {
			s.fail(w, r, fleet.Errorf(fleet.CodeNotFound, "no key list is called that"))
			return
		}
		l, err = s.c.KeyLists.KeyListOf(r.Context(), uint32(n))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", cache)
	h.Set("Content-Type", "application/cose")
	h.Set("ETag", `"`+l.Digest.String()+`"`)
	setRange(r.Header, int64(len(l.Envelope)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(l.Envelope))
}
