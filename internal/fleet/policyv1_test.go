package fleet

import (
	"fmt"
	"testing"
)

// What v1 devices are not served is as if withdrawn, and still there: a device
// without a product must not come to another product's releases by that.
func TestForV1(t *testing.T) {
	list := []Release{{ID: 3, Product: "signed", Version: "2", State: ReleasePublished}, {ID: 2, Product: "plain", Version: "1", State: ReleasePublished},
		{ID: 1, Product: "signed", Version: "1", State: ReleaseWithdrawn}}
	before := fmt.Sprint(list)
	out := ForV1(list, map[string]bool{"signed": true})
	if fmt.Sprint(list) != before {
		t.Error("the list itself was changed")
	}
	if n := Newest(out, "signed"); n != nil {
		t.Errorf("v1 devices get %+v", n)
	}
	if n := Newest(out, "plain"); n == nil || n.ID != 2 {
		t.Errorf("%+v", n)
	}
	products := Products(out)
	if p := ProductOf(Device{}, products); len(products) != 2 || p != DefaultProduct || Newest(out, p) != nil {
		t.Errorf("a device without a product is of %s, of %v", p, products)
	}
	// A build for one slot is for nobody there: v1 does not say where a device runs from.
	slotted := append([]Release{{ID: 4, Product: "plain", Version: "2", State: ReleasePublished, HasSlot: true, PublishedAt: at(9)}}, list...)
	if n := Newest(ForV1(slotted, nil), "plain"); n == nil || n.ID != 2 {
		t.Errorf("%+v", n)
	}
	if out := ForV1(list, nil); Newest(out, "signed") == nil {
		t.Error("allowed, and not served")
	}
}
