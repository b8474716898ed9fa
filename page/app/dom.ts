/** The little that the views need of a document. */

type Props<T> = { readonly [K in Exclude<keyof T, 'attributes'>]?: T[K] } & {
  readonly attributes?: Readonly<Record<string, string>>;
};

/** An element of the page, which must be there. */
export function byId<T extends HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`"id" expected an element of the page, got ${id}`);
  return element as T;
}

export function create<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  { attributes = {}, ...props }: Props<HTMLElementTagNameMap[Tag]> = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const element = Object.assign(document.createElement(tag), props);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function createSvg<Tag extends keyof SVGElementTagNameMap>(
  tag: Tag,
  attributes: Readonly<Record<string, string | number>>,
  ...children: readonly (Node | string)[]
): SVGElementTagNameMap[Tag] {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** A row of a table whose first cell names it. */
export function tableRow(name: string, ...cells: readonly string[]): HTMLTableRowElement {
  const header = create('th', { scope: 'row' }, name);
  return create('tr', {}, header, ...cells.map(cell => create('td', {}, cell)));
}

export function tableHead(...names: readonly string[]): HTMLTableSectionElement {
  return create('thead', {}, create('tr', {}, ...names.map(name => create('th', { scope: 'col' }, name))));
}
