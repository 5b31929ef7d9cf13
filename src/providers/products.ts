/** A product as the model is told of it, whichever source found it. */
export interface Product {
  readonly title: string;
  readonly price: number | null;
  readonly currency: string | null;
  readonly link: string;
  readonly image: string | null;
  readonly condition: string | null;
  /** `eBay`, or the shop as the search engine names it. */
  readonly source: string;
  readonly shipping: string | null;
  readonly rating: number | null;
}
