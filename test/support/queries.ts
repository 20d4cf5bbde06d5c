// The texts of a source file, and what of them the database would look up in its search path: a function or an
// operator of `public`, which on some servers anybody may create there, can fit better than the one that is meant.

// A `/` after one of these begins a regular expression; after a value, it divides.
const BEFORE_REGEX =
  /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|throw|await))$/;

/** Every string and template, in their order; an expression in a template is `$x`, and its own texts follow. */
export function readTexts(source: string): string[] {
  const texts: string[] = [];
  let at = 0;
  const match = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    const [found = source.charAt(at)] = pattern.exec(source) ?? [];
    at += found.length;
    return found;
  };
  const template = () => {
    const index = texts.push("") - 1;
    let text = "";
    for (;;) {
      const part = match(/(?:\\[\s\S]|\$(?!\{)|[^\\`$])*(?:`|\$\{)?/y);
      text += part.replace(/(?:`|\$\{)$/, "");
      if (!part.endsWith("${")) break;
      text += "$x";
      code(true);
    }
    texts[index] = cooked(text);
  };
  const code = (isInTemplate: boolean) => {
    let before = "";
    for (let depth = 0; at < source.length; ) {
      const character = source.charAt(at);
      if (source.startsWith("//", at)) match(/.*/y);
      else if (source.startsWith("/*", at)) match(/\/\*[\s\S]*?\*\//y);
      else if (character === '"' || character === "'") {
        texts.push(cooked(match(/(["'])(?:\\[\s\S]|(?!\1)[^\\\n])*\1/y).slice(1, -1)));
        before += "0";
      } else if (character === "`") {
        at++;
        template();
        before += "0";
      } else if (character === "/" && BEFORE_REGEX.test(before.trimEnd())) {
        match(/\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/\w*/y);
        before += "0";
      } else {
        at++;
        if (character === "{") depth++;
        if (character === "}" && depth-- === 0 && isInTemplate) return;
        before = (before + character).slice(-40);
      }
    }
  };
  code(false);
  return texts;
}

const cooked = (text: string): string =>
  text.replace(/\\([\s\S])/g, (_, escaped: string) => (escaped === "n" ? "\n" : escaped));

/** Followed by a bracket, and no call that a name is looked up for. */
const SYNTAX = new Set([
  ...["select", "from", "where", "and", "or", "not", "on", "using", "in", "any", "all", "exists"],
  ...[
    "values",
    "as",
    "over",
    "filter",
    "by",
    "limit",
    "union",
    "when",
    "then",
    "else",
    "returning",
  ],
  ...[
    "coalesce",
    "nullif",
    "greatest",
    "least",
    "cast",
    "row",
    "array",
    "extract",
    "lateral",
    "materialized",
  ],
  ...["operator", "interval", "between", "case", "with"],
]);
const SCHEMAS = new Set(["pg_catalog", "etl", "pii_vault"]);

/** Of a text that may be SQL. */
const STATEMENT =
  /\b(?:select|call|declare|(?:order|group) by|insert into|delete from|set local)\b|::|\b(?:etl|pii_vault|pg_catalog)\./;
const CALL = /(?<![\w$.])(?:([\w$"]+)\s*\.\s*)?([\w$"]+)(\s*)\(/g;
/** Whose operands may be arrays, ranges or documents: no operator of pg_catalog is exactly theirs. */
const POLYMORPHIC = /@>|<@|&&/g;
/** Compared as it is, an operator of public's could be the exact one. */
const ALIAS = /::(?:reg\w+|varchar|name|char)\b(?!\s*::)/g;

/** What the text leaves to the search path. */
export function findUnqualified(text: string): string[] {
  // A quoted word is a value.
  const code = text.replace(/'(?:[^']|'')*'/g, "''").replace(/--.*|\/\*[\s\S]*?\*\//g, "");
  const isStatement = STATEMENT.test(code);
  const calls = [...code.matchAll(CALL)].filter(([, schema, name = "", space]) => {
    if (schema !== undefined) return isStatement && !SCHEMAS.has(schema);
    // Prose has a space before a bracket.
    return (isStatement || space === "") && !SYNTAX.has(name.toLowerCase());
  });
  const operators = isStatement ? [...code.matchAll(POLYMORPHIC), ...code.matchAll(ALIAS)] : [];
  return [...calls, ...operators].map(([found]) => found.trim());
}

/** Functions of pg_catalog that the text calls. */
export const calledFunctions = (text: string): string[] =>
  [...text.matchAll(/\bpg_catalog\.(\w+)\s*\(/g)].map(([, name]) => name!);
